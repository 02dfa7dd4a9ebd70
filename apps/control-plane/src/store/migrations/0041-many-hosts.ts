import { AppError } from '@wrenn/base'
import { type Kysely, sql } from 'kysely'

/** Which host has a snapshot, and which hosts are gone for good. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE hosts ADD COLUMN removed_at timestamptz`.execute(db)
  // Of those that were removed before, the trail alone tells.
  await sql`UPDATE hosts SET removed_at = now() WHERE id NOT IN (SELECT id FROM joined_hosts)
    AND id IN (SELECT resource_id FROM audit_log WHERE action = 'host.delete')`.execute(db)
  await sql`ALTER TABLE snapshots ADD COLUMN host_id text REFERENCES hosts (id)`.execute(db)
  await sql`UPDATE snapshots SET host_id = (SELECT c.host_id FROM capsules AS c WHERE c.id = snapshots.capsule_id)`.execute(
    db,
  )
  await sql`CREATE INDEX capsules_host ON capsules (host_id) WHERE state NOT IN ('stopped', 'error')`.execute(db)
}

/**
 * Forgets both. An earlier version calls one host, the first that has joined, and takes for lost what that does not have.
 * @throws AppError `conflict` while others have capsules
 */
export async function down(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql`SELECT id FROM capsules WHERE state NOT IN ('stopped', 'error')
    AND host_id IN (SELECT id FROM joined_hosts WHERE joined_at IS NOT NULL ORDER BY created_at, id OFFSET 1) LIMIT 1`.execute(
    db,
  )
  if (rows.length > 0) {
    const message = 'Several hosts have capsules; an earlier version would lose those of all but one. End them first.'
    throw new AppError('conflict', message)
  }
  await sql`DROP INDEX capsules_host`.execute(db)
  await sql`ALTER TABLE snapshots DROP COLUMN host_id`.execute(db)
  await sql`ALTER TABLE hosts DROP COLUMN removed_at`.execute(db)
}
