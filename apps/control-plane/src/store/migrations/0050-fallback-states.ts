import { AppError } from '@wrenn/base'
import { type Kysely, sql } from 'kysely'

/** Which state in the object store a capsule goes back to that runs, or ran, before it had a durable one on its host. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules ADD COLUMN fallback_state text`.execute(db)
}

/**
 * Forgets them.
 * @throws AppError `conflict` while a capsule has one
 */
export async function down(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql`SELECT id FROM capsules WHERE fallback_state IS NOT NULL LIMIT 1`.execute(db)
  if (rows.length > 0) {
    throw new AppError(
      'conflict',
      'Capsules run that have no durable state on their host; an earlier version would lose the one in the object store. Pause them first, and wait until they are durable.',
    )
  }
  await sql`ALTER TABLE capsules DROP COLUMN fallback_state`.execute(db)
}
