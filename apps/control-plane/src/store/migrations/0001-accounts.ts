import { type Kysely, sql } from 'kysely'

/** Teams and keys. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE teams (
    id text PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  await sql`CREATE TABLE api_keys (
    id text PRIMARY KEY,
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    name text NOT NULL,
    prefix text NOT NULL,
    key_hash text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX api_keys_team ON api_keys (team_id)`.execute(db)
}

/** Drops teams and keys. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE api_keys`.execute(db)
  await sql`DROP TABLE teams`.execute(db)
}
