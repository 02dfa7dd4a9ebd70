import { type Kysely, sql } from 'kysely'

/** The list that is asked for most: what a team has, newest first, without what has ended. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE INDEX capsules_live ON capsules (team_id, seq DESC) WHERE state NOT IN ('stopped', 'error')`.execute(
    db,
  )
}

export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX capsules_live`.execute(db)
}
