import { type Kysely, sql } from 'kysely'

/**
 * Secrets of teams, encrypted, which rules of egress policies refer to by name. Of a capsule with such rules there is which: when a secret changes,
 * their hosts are told anew. `told_version` says how far that has come; a secret that is deleted stays until it has.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE secrets (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id),
    name text NOT NULL,
    value text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    told_version bigint NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX secrets_name ON secrets (team_id, name) WHERE deleted_at IS NULL`.execute(db)
  await sql`CREATE INDEX secrets_untold ON secrets (id) WHERE told_version < version`.execute(db)
  await sql`ALTER TABLE capsules ADD COLUMN secret_names text[]`.execute(db)
  await sql`CREATE INDEX capsules_secrets ON capsules (team_id) WHERE secret_names IS NOT NULL`.execute(db)
}

/** Forgets the secrets: rules that refer to one then set the reference itself, as an older version knows nothing else. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules DROP COLUMN secret_names`.execute(db)
  await sql`DROP TABLE secrets`.execute(db)
}
