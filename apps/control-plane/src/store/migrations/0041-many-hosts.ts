import { type Kysely, sql } from 'kysely'

/** Which host has a snapshot, and which hosts are gone for good. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE hosts ADD COLUMN removed_at timestamptz`.execute(db)
  await sql`ALTER TABLE snapshots ADD COLUMN host_id text REFERENCES hosts (id)`.execute(db)
  await sql`UPDATE snapshots SET host_id = (SELECT c.host_id FROM capsules AS c WHERE c.id = snapshots.capsule_id)`.execute(
    db,
  )
  await sql`CREATE INDEX capsules_host ON capsules (host_id) WHERE state NOT IN ('stopped', 'error')`.execute(db)
}

/** Forgets both: there is one host again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX capsules_host`.execute(db)
  await sql`ALTER TABLE snapshots DROP COLUMN host_id`.execute(db)
  await sql`ALTER TABLE hosts DROP COLUMN removed_at`.execute(db)
}
