import { type Kysely, sql } from 'kysely'

/** What hosts have for capsules, and which get no new ones. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE hosts ADD COLUMN cpus integer, ADD COLUMN memory_mib bigint, ADD COLUMN pool_free double precision`.execute(
    db,
  )
  await sql`ALTER TABLE joined_hosts ADD COLUMN cordoned_at timestamptz`.execute(db)
}

/** Forgets both. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE joined_hosts DROP COLUMN cordoned_at`.execute(db)
  await sql`ALTER TABLE hosts DROP COLUMN cpus, DROP COLUMN memory_mib, DROP COLUMN pool_free`.execute(db)
}
