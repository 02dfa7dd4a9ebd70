import { type Kysely, sql } from 'kysely'

/** For each: the table, the columns, and of which rows. */
const indexes: Readonly<Record<string, readonly [table: string, columns: string, rows?: string]>> = {
  // A filter of a list and its order, so that a page is read and nothing else, however many rows a team has.
  capsules_team_state: ['capsules', 'team_id, state, seq DESC'],
  capsules_team_name: ['capsules', 'team_id, name, seq DESC', 'name IS NOT NULL'],
  capsules_team_template: ['capsules', 'team_id, template, seq DESC'],
  capsules_team_started: ['capsules', 'team_id, (coalesce(started_at, created_at))'],
  audit_log_resource_type: ['audit_log', 'team_id, resource_type, at DESC, id DESC'],
  audit_log_outcome: ['audit_log', 'team_id, outcome, at DESC, id DESC'],
  snapshots_team: ['snapshots', 'team_id, seq', "state = 'ready'"],
  snapshots_team_name: ['snapshots', 'team_id, name, seq', "state = 'ready'"],
  snapshots_team_capsule: ['snapshots', 'team_id, capsule_id, seq', "state = 'ready'"],
  api_keys_listed: ['api_keys', 'team_id, created_at DESC, id DESC'],
  users_listed: ['users', 'created_at, id', 'erased_at IS NULL'],
  teams_listed: ['teams', 'created_at, id', 'deleted_at IS NULL'],
  // What is forgotten after its time.
  capsules_ended: ['capsules', 'updated_at', "state IN ('stopped', 'error')"],
  operations_ended: ['operations', 'updated_at', "state <> 'running'"],
  snapshots_deleted: ['snapshots', 'deleted_at', "state = 'deleted'"],
  // What an account has left behind.
  operations_actor: ['operations', "(actor ->> 'id')"],
  template_builds_actor: ['template_builds', "(actor ->> 'id')"],
  api_keys_maker: ['api_keys', 'created_by'],
  invitations_email: ['invitations', 'email'],
  invitations_inviter: ['invitations', 'invited_by'],
}

/** Indexes for what lists filter and sort by, and for what is looked for behind an account that ends. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const [name, [table, columns, rows]] of Object.entries(indexes)) {
    const where = rows === undefined ? '' : ` WHERE ${rows}`
    await sql.raw(`CREATE INDEX ${name} ON ${table} (${columns})${where}`).execute(db)
  }
  // Else up to 4 MB of labels wait outside the index, and each search reads all of them.
  await sql`ALTER INDEX capsules_labels SET (fastupdate = off)`.execute(db)
  await sql`SELECT gin_clean_pending_list('capsules_labels')`.execute(db)
}

/** The same answers, slower. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`ALTER INDEX capsules_labels RESET (fastupdate)`.execute(db)
  for (const name of Object.keys(indexes)) await sql.raw(`DROP INDEX ${name}`).execute(db)
}
