import { type Kysely, sql } from 'kysely'

/** How many steps builds have, and how many of them they did not do because of what earlier ones have kept. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE template_builds ADD COLUMN steps integer, ADD COLUMN cached_steps integer`.execute(db)
}

/** Forgets it, which is told of builds alone. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE template_builds DROP COLUMN steps, DROP COLUMN cached_steps`.execute(db)
}
