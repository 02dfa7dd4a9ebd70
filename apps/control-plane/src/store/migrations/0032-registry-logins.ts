import { type Kysely, sql } from 'kysely'

/** Logins of teams at registries, which builds of the team ask with. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE registry_logins (
    team_id text NOT NULL REFERENCES teams (id),
    registry text NOT NULL,
    username text NOT NULL,
    password text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, registry)
  )`.execute(db)
}

/** Forgets them: images that are not everybody's are refused until somebody logs in again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE registry_logins`.execute(db)
}
