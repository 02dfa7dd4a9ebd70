import { type Kysely, sql } from 'kysely'

/** What hosts are called by whoever asks for some of them alone. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE joined_hosts ADD COLUMN tags text[] NOT NULL DEFAULT '{}'`.execute(db)
}

/** Forgets them. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE joined_hosts DROP COLUMN tags`.execute(db)
}
