import { type Kysely, sql } from 'kysely'

/** What a capsule may reach can change: which policy is the newest, and which one its host has. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules
    ADD COLUMN egress_revision integer NOT NULL DEFAULT 0,
    ADD COLUMN egress_in_force integer NOT NULL DEFAULT 0`.execute(db)
  await sql`CREATE INDEX capsules_egress_pending ON capsules (id) WHERE egress_revision <> egress_in_force`.execute(db)
}

/** The policies stay; what their hosts have of them does too. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP INDEX capsules_egress_pending`.execute(db)
  await sql`ALTER TABLE capsules DROP COLUMN egress_revision, DROP COLUMN egress_in_force`.execute(db)
}
