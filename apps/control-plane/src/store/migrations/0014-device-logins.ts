import { type Kysely, sql } from 'kysely'

/** Programs that wait until a person lets them in, by the digest of the code that each has. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE device_logins (
    digest text PRIMARY KEY,
    user_code text NOT NULL UNIQUE,
    client text NOT NULL,
    ip text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    decided_by text REFERENCES sessions (id) ON DELETE CASCADE,
    denied boolean NOT NULL DEFAULT false
  )`.execute(db)
  await sql`CREATE INDEX device_logins_expiry ON device_logins (expires_at)`.execute(db)
  await sql`CREATE INDEX device_logins_decided_by ON device_logins (decided_by)`.execute(db)
}

/** Whoever waits begins anew. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE device_logins`.execute(db)
}
