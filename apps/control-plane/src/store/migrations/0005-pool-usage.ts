import { type Kysely, sql } from 'kysely'

/** What a team's files take of a host's pool together: sizes of single ones cannot be added, for they share blocks. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE pool_usage (
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    host_id text NOT NULL,
    bytes bigint NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, host_id)
  )`.execute(db)
}

/** Forgets what was measured; hosts say it again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE pool_usage`.execute(db)
}
