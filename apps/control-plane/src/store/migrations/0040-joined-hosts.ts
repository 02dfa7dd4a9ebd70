import { type Kysely, sql } from 'kysely'

/** Other machines that may run capsules, and by what they prove who they are. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE joined_hosts (
    id text PRIMARY KEY,
    address text,
    arch text,
    cpu_cores integer,
    memory_mib bigint,
    disk_gib bigint,
    token_digest text,
    token_expires_at timestamptz,
    token_key_hash text,
    joined_at timestamptz,
    revoked_at timestamptz,
    refresh_digest text,
    rotation_key text,
    rotations integer NOT NULL DEFAULT 0,
    refresh_key_hash text,
    refresh_expires_at timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
  )`.execute(db)
}

/** Forgets them: the platform calls none of them any more. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE joined_hosts`.execute(db)
}
