import { type Kysely, sql } from 'kysely'

/** What builds were made of, by hashes, so that a later one can say what has changed; and the order in which they are listed. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE template_builds ADD COLUMN trace jsonb`.execute(db)
  await sql`CREATE INDEX template_builds_listed ON template_builds (team_id, created_at DESC, id DESC)`.execute(db)
}

/** Forgets it: the next builds say that there was none before. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX template_builds_listed`.execute(db)
  await sql`ALTER TABLE template_builds DROP COLUMN trace`.execute(db)
}
