import { AppError } from '@wrenn/base'
import { type CapsuleState, capsuleStates } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from './database.js'
import { notePoolUse } from './quota-levels.js'
import type { CapsuleRow, PlansTable } from './schema.js'
import { isTemplate } from './snapshots.js'

/** States in which a capsule has vCPUs and memory, or will have them in a moment. */
const awake = ['pending', 'starting', 'running', 'pausing', 'resuming'] as const satisfies readonly CapsuleState[]

/** States of a capsule that has not ended. */
const open = capsuleStates.filter((state) => state !== 'stopped' && state !== 'error')

/** What counts against the quotas of a team. */
export interface Usage {
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  readonly poolBytes: number
  /** Those that are being created. */
  readonly creating: number
  /** All that are not ended. */
  readonly open: number
  /** Quotas that it was near when they were last looked at. */
  readonly raised: number
}

/** Limits of a team or a plan: null is for the next to say, a team's plan and then the platform; 0 is no limit. */
export type TeamQuota = Pick<PlansTable, (typeof quotaColumns)[number]>

const quotaColumns = [
  'max_running',
  'max_vcpus',
  'max_memory_mib',
  'max_pool_bytes',
  'max_creating',
  'max_calls_per_min',
] as const

/**
 * The team's limits, held until the end of the transaction: one start of a team at a time decides about them. The lock lets
 * operations of the team be written by others.
 * @throws AppError `unauthorized` when the team was deleted meanwhile
 */
export async function lockTeam(tx: Db, teamId: string): Promise<TeamQuota> {
  const team = await quotaOf(tx, teamId).where('t.deleted_at', 'is', null).forNoKeyUpdate('t').executeTakeFirst()
  if (team === undefined) throw new AppError('unauthorized', 'The team was deleted.')
  return team
}

/** The same limits for reading; decisions take {@link lockTeam}. */
export async function findQuota(db: Db, teamId: string): Promise<TeamQuota & { readonly plan: string | null }> {
  return await quotaOf(db, teamId).select('t.plan').executeTakeFirstOrThrow()
}

/** What a team's plan says counts where the team has no limit of its own. */
function quotaOf(db: Db, teamId: string) {
  return db
    .selectFrom('teams as t')
    .leftJoin('plans as p', 'p.name', 't.plan')
    .select((eb) => quotaColumns.map((column) => eb.fn.coalesce(`t.${column}`, `p.${column}`).as(column)))
    .where('t.id', '=', teamId)
}

const listed = (states: readonly CapsuleState[]) => sql.join(states.map((state) => sql.lit(state)))
const runs = sql`(state IN (${listed(awake)}) OR (state = 'missing' AND desired_state = 'running'))`

/** What a team uses. A missing capsule that is meant to run counts: its silent host runs it still. */
export async function findUsage(db: Db, teamId: string): Promise<Usage> {
  const { rows } = await sql<Usage>`SELECT
      count(*) FILTER (WHERE ${runs}) AS "running",
      coalesce(sum(vcpus) FILTER (WHERE ${runs}), 0)::bigint AS "vcpus",
      coalesce(sum(memory_mib) FILTER (WHERE ${runs}), 0)::bigint AS "memoryMib",
      count(*) FILTER (WHERE state IN ('pending', 'starting')) AS "creating",
      count(*) AS "open",
      (SELECT coalesce(sum(bytes), 0) FROM pool_usage WHERE team_id = ${teamId})::bigint AS "poolBytes",
      (SELECT count(*) FROM quota_levels WHERE team_id = ${teamId} AND level > 0) AS "raised"
    FROM capsules WHERE team_id = ${teamId} AND state IN (${listed(open)})`.execute(db)
  const [usage] = rows
  if (usage === undefined) throw new Error('an aggregate without a row')
  return usage
}

/** A host that the database knows, and what its capsules take of it. */
export interface HostUse {
  readonly id: string
  readonly address: string
  readonly agentVersion: string
  readonly engine: string
  readonly lastSeenAt: Date
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  /** Sleeping ones too. */
  readonly open: number
  readonly templates: number
}

/** The one that was seen last comes first. */
export async function listHostUse(db: Db): Promise<HostUse[]> {
  const { rows } = await sql<HostUse>`SELECT
      h.id, h.address, h.agent_version AS "agentVersion", h.engine, h.last_seen_at AS "lastSeenAt",
      count(c.id) FILTER (WHERE ${runs}) AS "running",
      coalesce(sum(c.vcpus) FILTER (WHERE ${runs}), 0)::bigint AS "vcpus",
      coalesce(sum(c.memory_mib) FILTER (WHERE ${runs}), 0)::bigint AS "memoryMib",
      count(c.id) AS "open",
      (SELECT count(*) FROM snapshots WHERE snapshots.host_id = h.id AND ${isTemplate}) AS "templates"
    FROM hosts AS h LEFT JOIN capsules AS c ON c.host_id = h.id AND c.state IN (${listed(open)})
    GROUP BY h.id ORDER BY h.last_seen_at DESC, h.id`.execute(db)
  return rows
}

/**
 * Replaces what a host has said its teams take of its pool. Teams that the database does not know are left out. Of a host that was removed since it
 * was asked nothing is written.
 * @param defaultLimit of a team that has none of its own or of its plan; 0: none
 */
export async function recordPoolUsage(
  db: Db,
  hostId: string,
  teams: readonly { readonly teamId: string; readonly bytes: number }[],
  defaultLimit: number,
): Promise<void> {
  const ids = teams.map(({ teamId }) => teamId)
  const known = await db.selectFrom('pool_usage').select(['team_id', 'bytes']).where('host_id', '=', hostId).execute()
  const before = new Map(known.map(({ team_id: teamId, bytes }) => [teamId, Number(bytes)]))
  if (before.size === ids.length && teams.every(({ teamId, bytes }) => before.get(teamId) === bytes)) {
    // Their limits may be others than before.
    if (ids.length > 0) await notePoolUse(db, ids, defaultLimit)
    return
  }
  const rows = JSON.stringify(teams.map(({ teamId, bytes }) => ({ team_id: teamId, bytes })))
  await db.transaction().execute(async (tx) => {
    const there = tx.selectFrom('hosts').select('id').where('id', '=', hostId).where('removed_at', 'is', null)
    if ((await there.forShare().executeTakeFirst()) === undefined) return
    await tx.deleteFrom('pool_usage').where('host_id', '=', hostId).execute()
    await sql`INSERT INTO pool_usage (team_id, host_id, bytes)
      SELECT said.team_id, ${hostId}, said.bytes
      FROM json_to_recordset(${rows}::json) AS said (team_id text, bytes bigint) JOIN teams ON teams.id = said.team_id
      ON CONFLICT (team_id, host_id) DO UPDATE SET bytes = excluded.bytes, measured_at = now()`.execute(tx)
    await notePoolUse(tx, ids, defaultLimit)
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
