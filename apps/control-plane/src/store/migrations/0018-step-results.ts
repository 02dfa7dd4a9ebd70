import { type Kysely, sql } from 'kysely'

/** What is kept of the steps of builds is called that: a layer is something else. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE snapshots RENAME COLUMN layer_hash TO steps_hash`.execute(db)
  await sql`ALTER INDEX snapshots_layers RENAME TO snapshots_steps`.execute(db)
}

/** Gives it its name of before. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER INDEX snapshots_steps RENAME TO snapshots_layers`.execute(db)
  await sql`ALTER TABLE snapshots RENAME COLUMN steps_hash TO layer_hash`.execute(db)
}
