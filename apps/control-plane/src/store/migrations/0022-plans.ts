import { type Kysely, sql } from 'kysely'

/** Plans: limits with a name, for any number of teams; and two more kinds of limits. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE plans (
    name text PRIMARY KEY,
    max_running integer CHECK (max_running >= 0),
    max_vcpus integer CHECK (max_vcpus >= 0),
    max_memory_mib integer CHECK (max_memory_mib >= 0),
    max_pool_bytes bigint CHECK (max_pool_bytes >= 0),
    max_creating integer CHECK (max_creating >= 0),
    max_calls_per_min integer CHECK (max_calls_per_min >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
  )`.execute(db)
  await sql`ALTER TABLE teams
    ADD COLUMN plan text REFERENCES plans,
    ADD COLUMN max_creating integer CHECK (max_creating >= 0),
    ADD COLUMN max_calls_per_min integer CHECK (max_calls_per_min >= 0)`.execute(db)
  await sql`CREATE INDEX teams_of_plan ON teams (plan) WHERE plan IS NOT NULL`.execute(db)
  // Written once a second for each team that calls: room in the pages keeps such an update out of the index.
  await sql`CREATE TABLE team_calls (
    team_id text PRIMARY KEY REFERENCES teams ON DELETE CASCADE,
    minute bigint NOT NULL,
    calls bigint NOT NULL
  ) WITH (fillfactor = 50)`.execute(db)
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE team_calls`.execute(db)
  await sql`ALTER TABLE teams DROP COLUMN plan, DROP COLUMN max_creating, DROP COLUMN max_calls_per_min`.execute(db)
  await sql`DROP TABLE plans`.execute(db)
}
