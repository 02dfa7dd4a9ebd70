import { type Kysely, sql } from 'kysely'

/** Since when states are in the object store, as their capsules count, and since when a team's waste waits for a moment in which nobody stores. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE stored_states ADD COLUMN generation bigint`.execute(db)
  await sql`ALTER TABLE stored_teams ADD COLUMN waits_since timestamptz`.execute(db)
  // Those that are fetched now are so as what this counts.
  await sql`UPDATE stored_states AS s SET generation = c.generation - 1 FROM capsules AS c WHERE c.stored_state = s.id`.execute(
    db,
  )
}

/** Forgets both. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE stored_teams DROP COLUMN waits_since`.execute(db)
  await sql`ALTER TABLE stored_states DROP COLUMN generation`.execute(db)
}
