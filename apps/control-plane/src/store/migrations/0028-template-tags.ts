import { type Kysely, sql } from 'kysely'

/** Names for builds of a template beside the one that its own name stands for, and which of them a build is to get. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE template_tags (
    team_id text NOT NULL REFERENCES teams (id),
    name text NOT NULL,
    tag text NOT NULL,
    snapshot_id text NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, name, tag)
  )`.execute(db)
  await sql`CREATE INDEX template_tags_snapshot ON template_tags (snapshot_id)`.execute(db)
  await sql`ALTER TABLE template_builds ADD COLUMN tags text[] NOT NULL DEFAULT '{}'`.execute(db)
}

/** Forgets tags; what only they stood for goes with its files, as results of steps do that are no longer kept. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE template_builds DROP COLUMN tags`.execute(db)
  await sql`DROP TABLE template_tags`.execute(db)
}
