import { AppError } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from './database.js'
import type { CapsuleRow, TeamsTable } from './schema.js'

/** States in which a capsule has vCPUs and memory, or will have them in a moment. */
const awake = ['pending', 'starting', 'running', 'pausing', 'resuming'] as const satisfies readonly CapsuleState[]

/** What counts against the quotas of a team. */
export interface Usage {
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  readonly poolBytes: number
  /** All that are not ended. */
  readonly open: number
}

/** A team's own limits: null is the platform's default, 0 no limit. */
export type TeamQuota = Pick<TeamsTable, 'max_running' | 'max_vcpus' | 'max_memory_mib' | 'max_pool_bytes'>

/**
 * The team's limits, held until the end of the transaction: one start of a team at a time decides about them. The lock lets
 * operations of the team be written by others.
 * @throws AppError `unauthorized` when the team was deleted meanwhile
 */
export async function lockTeam(tx: Db, teamId: string): Promise<TeamQuota> {
  const team = await quotaColumns(tx, teamId).where('deleted_at', 'is', null).forNoKeyUpdate().executeTakeFirst()
  if (team === undefined) throw new AppError('unauthorized', 'The team was deleted.')
  return team
}

/** The same limits for reading; decisions take {@link lockTeam}. */
export async function findQuota(db: Db, teamId: string): Promise<TeamQuota> {
  return await quotaColumns(db, teamId).executeTakeFirstOrThrow()
}

function quotaColumns(db: Db, teamId: string) {
  return db
    .selectFrom('teams')
    .select(['max_running', 'max_vcpus', 'max_memory_mib', 'max_pool_bytes'])
    .where('id', '=', teamId)
}

/** What a team uses. A missing capsule that is meant to run counts: its silent host runs it still. */
export async function findUsage(db: Db, teamId: string): Promise<Usage> {
  const states = sql.join(awake.map((state) => sql.lit(state)))
  const runs = sql`(state IN (${states}) OR (state = 'missing' AND desired_state = 'running'))`
  const { rows } = await sql<Usage>`SELECT
      count(*) FILTER (WHERE ${runs}) AS "running",
      coalesce(sum(vcpus) FILTER (WHERE ${runs}), 0)::bigint AS "vcpus",
      coalesce(sum(memory_mib) FILTER (WHERE ${runs}), 0)::bigint AS "memoryMib",
      count(*) FILTER (WHERE state NOT IN ('stopped', 'error')) AS "open",
      (SELECT coalesce(sum(bytes), 0) FROM pool_usage WHERE team_id = ${teamId})::bigint AS "poolBytes"
    FROM capsules WHERE team_id = ${teamId}`.execute(db)
  const [usage] = rows
  if (usage === undefined) throw new Error('an aggregate without a row')
  return usage
}

/** Replaces what a host has said its teams take of its pool. Teams that the database does not know are left out. */
export async function recordPoolUsage(
  db: Db,
  hostId: string,
  teams: readonly { readonly teamId: string; readonly bytes: number }[],
): Promise<void> {
  const rows = JSON.stringify(teams.map(({ teamId, bytes }) => ({ team_id: teamId, bytes })))
  await db.transaction().execute(async (tx) => {
    await tx.deleteFrom('pool_usage').where('host_id', '=', hostId).execute()
    await sql`INSERT INTO pool_usage (team_id, host_id, bytes)
      SELECT said.team_id, ${hostId}, said.bytes
      FROM json_to_recordset(${rows}::json) AS said (team_id text, bytes bigint) JOIN teams ON teams.id = said.team_id
      ON CONFLICT (team_id, host_id) DO UPDATE SET bytes = excluded.bytes, measured_at = now()`.execute(tx)
  })
}

/** The team's capsules that have most of something now. */
export async function findLargest(
  db: Db,
  teamId: string,
  by: 'vcpus' | 'memory_mib' | 'disk_bytes' | 'created_at',
  limit: number,
): Promise<CapsuleRow[]> {
  let query = db.selectFrom('capsules').selectAll().where('team_id', '=', teamId)
  query = by === 'disk_bytes' ? query.where('state', '!=', 'stopped') : query.where('state', 'in', awake)
  return await query
    .orderBy(by, by === 'created_at' ? 'asc' : 'desc')
    .orderBy('seq')
    .limit(limit)
    .execute()
}

interface LargeFiles {
  readonly kind: 'checkpoint' | 'snapshot'
  readonly name: string
  readonly bytes: number
}

/** The team's checkpoints and snapshots that hold most of the pool. */
export async function findLargestFiles(db: Db, teamId: string, limit: number): Promise<LargeFiles[]> {
  const { rows } = await sql<LargeFiles>`
    SELECT 'checkpoint' AS "kind", name || ' of ' || capsule_id AS "name", size_bytes AS "bytes"
      FROM checkpoints WHERE team_id = ${teamId} AND size_bytes > 0
    UNION ALL
    SELECT 'snapshot', name, size_bytes FROM snapshots WHERE team_id = ${teamId} AND state = 'ready' AND size_bytes > 0
    ORDER BY 3 DESC LIMIT ${limit}`.execute(db)
  return rows
}
