import { type Kysely, sql } from 'kysely'

/** What a host may have, ended capsules that can be resumed there too: without it every comparison of a host reads all capsules of all hosts. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE INDEX capsules_on_host ON capsules (host_id) WHERE state <> 'stopped'`.execute(db)
  await sql`DROP INDEX capsules_host`.execute(db)
}

/** Back to those that have not ended. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE INDEX capsules_host ON capsules (host_id) WHERE state NOT IN ('stopped', 'error')`.execute(db)
  await sql`DROP INDEX capsules_on_host`.execute(db)
}
