import { type Kysely, sql } from 'kysely'

/** What rules of a policy set in requests: encrypted, beside `egress`, which has hosts and names of headers alone. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER TABLE capsules ADD COLUMN egress_rules text`.execute(db)
}

/** Forgets the values and who had some: an older version knows neither. Their hosts are then told nothing any more. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`UPDATE capsules SET egress = egress - 'rules', egress_revision = egress_revision + 1
    WHERE egress_rules IS NOT NULL`.execute(db)
  await sql`ALTER TABLE capsules DROP COLUMN egress_rules`.execute(db)
}
