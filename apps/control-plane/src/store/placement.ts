import { type RawBuilder, sql } from 'kysely'
import type { Db } from './database.js'

/** Of those who choose a host: from the look at what is promised until their own promise is written, one at a time. */
const PLACEMENT_LOCK = 727_003

/** What a host that has joined has, and what of it is promised to capsules. */
export interface HostLoad {
  readonly id: string
  readonly answers: boolean
  readonly isCordoned: boolean
  readonly tags: readonly string[]
  /** It has less of its memory or its pool left than it keeps free. */
  readonly isShort: boolean
  /** As it said when it joined, until it has answered; `null`: it has not said. */
  readonly cpus: number | null
  readonly memoryMib: number | null
  /** Of its pool, 0 to 1. */
  readonly poolFree: number | null
  /** Of capsules that run or may. */
  readonly usedVcpus: number
  readonly usedMib: number
  readonly pausedMib: number
}

/** Until the end of the transaction nobody else chooses a host, or removes one. */
export async function lockPlacement(tx: Db): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(${PLACEMENT_LOCK})`.execute(tx)
}

/** Until the end of the transaction others choose hosts only as whoever asks for this: with the lock of each host that they choose. Comes before these. */
export async function sharePlacement(tx: Db): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock_shared(${PLACEMENT_LOCK})`.execute(tx)
}

/** Until the end of the transaction nobody else promises anything of this host. */
export async function lockHost(tx: Db, id: string): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(${PLACEMENT_LOCK}, hashtext(${id}))`.execute(tx)
}

/** The same without waiting. @returns whether nobody else does just now */
export async function tryLockHost(tx: Db, id: string): Promise<boolean> {
  const look = sql<{ has: boolean }>`SELECT pg_try_advisory_xact_lock(${PLACEMENT_LOCK}, hashtext(${id})) AS has`
  return (await look.execute(tx)).rows[0]?.has === true
}

/**
 * All that have joined and said something, the oldest first. What is being moved to a host counts there before it comes.
 * @param only the one of them that matters
 */
export async function listHostLoads(db: Db, only?: string): Promise<readonly HostLoad[]> {
  const isOf = (host: RawBuilder<unknown>) => (only === undefined ? sql`true` : sql`${host} = ${only}`)
  const { rows } = await sql<HostLoad>`SELECT j.id,
      h.told_state = 'up' AND j.revoked_at IS NULL AS "answers",
      j.cordoned_at IS NOT NULL AS "isCordoned", j.tags, h.memory_short OR h.pool_short AS "isShort",
      coalesce(h.cpus, j.cpu_cores) AS "cpus", coalesce(h.memory_mib, j.memory_mib) AS "memoryMib", h.pool_free AS "poolFree",
      (coalesce(c.vcpus, 0) + coalesce(m.vcpus, 0))::float8 AS "usedVcpus",
      (coalesce(c.memory, 0) + coalesce(m.memory, 0))::float8 AS "usedMib",
      coalesce(c.paused, 0)::float8 AS "pausedMib"
    FROM joined_hosts AS j JOIN hosts AS h ON h.id = j.id LEFT JOIN (
      SELECT host_id, sum(vcpus) FILTER (WHERE state <> 'paused') AS vcpus,
        sum(memory_mib) FILTER (WHERE state <> 'paused') AS memory, sum(memory_mib) FILTER (WHERE state = 'paused') AS paused
      FROM capsules WHERE state NOT IN ('stopped', 'error') AND ${isOf(sql`host_id`)} GROUP BY host_id
    ) AS c ON c.host_id = j.id LEFT JOIN (
      SELECT o.params ->> 'hostId' AS host_id, sum(p.vcpus) AS vcpus, sum(p.memory_mib) AS memory
      FROM operations AS o JOIN capsules AS p ON p.id = o.capsule_id
      WHERE o.state = 'running' AND o.kind = 'move' AND p.host_id IS DISTINCT FROM o.params ->> 'hostId'
        AND p.state NOT IN ('stopped', 'error') AND ${isOf(sql`o.params ->> 'hostId'`)}
      GROUP BY 1
    ) AS m ON m.host_id = j.id
    WHERE j.joined_at IS NOT NULL AND ${isOf(sql`j.id`)} ORDER BY j.created_at, j.id`.execute(db)
  return rows
}
