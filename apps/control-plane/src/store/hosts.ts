import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'

interface SeenHost {
  readonly id: string
  readonly address: string
  readonly agentVersion: string
  readonly engine: string
  readonly cpus: number
  readonly memoryMib: number
  /** Of its pool, 0 to 1. */
  readonly poolFree: number
  readonly memory: Shortage
  readonly pool: Shortage
}

/** How much of something a host has left. */
export interface Shortage {
  /** Too little. */
  readonly isShort: boolean
  /** So little that a shortage is not over yet. */
  readonly isScarce: boolean
}

/** Adds a host, or notes that it was seen now and what it has become: a trigger tells of it. */
export async function recordHost(db: Db, host: SeenHost): Promise<void> {
  const seen = {
    address: host.address,
    agent_version: host.agentVersion,
    engine: host.engine,
    cpus: host.cpus,
    memory_mib: host.memoryMib,
    pool_free: host.poolFree,
    last_seen_at: sql<Date>`now()`,
  }
  const { memory, pool } = host
  await db
    .insertInto('hosts')
    .values({ id: host.id, ...seen })
    .onConflict((conflict) =>
      conflict.column('id').doUpdateSet({
        ...seen,
        told_state: 'up',
        memory_short: sql<boolean>`${memory.isShort} OR (hosts.memory_short AND ${memory.isScarce})`,
        pool_short: sql<boolean>`${pool.isShort} OR (hosts.pool_short AND ${pool.isScarce})`,
      }),
    )
    .execute()
}

/** Notes that a host was heard of now. */
export async function touchHost(db: Db, id: string): Promise<void> {
  await db.updateTable('hosts').set({ last_seen_at: sql<Date>`now()`, told_state: 'up' }).where('id', '=', id).execute()
}

/** A host by the id that it has joined by, else by its address: of those that had the address before nothing is noted. */
interface HostRef {
  readonly joinedId?: string | undefined
  readonly address: string
}

/** Notes that a host does not answer, unless a control plane has heard of it within `silentMs`. */
export async function recordSilence(db: Db, { joinedId, address }: HostRef, silentMs: number): Promise<void> {
  const id =
    joinedId === undefined
      ? sql`(SELECT id FROM hosts WHERE address = ${address} ORDER BY last_seen_at DESC LIMIT 1)`
      : sql`${joinedId}`
  await sql`UPDATE hosts SET told_state = 'down'
    WHERE id = ${id}
      AND told_state = 'up' AND last_seen_at < now() - ${silentMs} * interval '1 millisecond'`.execute(db)
}

/** Notes that a host comes back no more: nothing of what was on it is anywhere. */
export async function recordRemoval(tx: Db, id: string): Promise<void> {
  // Nobody is left whom to ask to delete them.
  const deleting = tx.updateTable('snapshots').set({ state: 'deleted' }).where('state', '=', 'deleting')
  await deleting.where('host_id', '=', id).execute()
  await tx.updateTable('hosts').set({ removed_at: sql<Date>`now()` }).where('id', '=', id).execute()
  // What builds have kept there helps no later one.
  await tx.updateTable('snapshots').set({ steps_hash: null }).where('host_id', '=', id).execute()
  await tx.deleteFrom('pool_usage').where('host_id', '=', id).execute()
}

/** Which of these hosts were removed. */
export async function goneAmong(db: Db, ids: readonly string[]): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set()
  const rows = await db
    .selectFrom('hosts')
    .select('id')
    .where('id', 'in', ids)
    .where('removed_at', 'is not', null)
    .execute()
  return new Set(rows.map(({ id }) => id))
}

/** Which of these hosts a control plane, this one or another, has heard of within `silentMs`. */
export async function heardAmong(db: Db, ids: readonly string[], silentMs: number): Promise<ReadonlySet<string>> {
  if (ids.length === 0) return new Set()
  const rows = await db
    .selectFrom('hosts')
    .select('id')
    .where('id', 'in', ids)
    .where('last_seen_at', '>=', sql<Date>`now() - ${silentMs} * interval '1 millisecond'`)
    .execute()
  return new Set(rows.map(({ id }) => id))
}

/** The host of a capsule; `undefined` when there is no such capsule. */
export async function findHostOfCapsule(db: Db, id: string): Promise<string | null | undefined> {
  return (await db.selectFrom('capsules').select('host_id').where('id', '=', id).executeTakeFirst())?.host_id
}

/** Whether nobody has noted which host has a capsule, though one should. One that hibernates is on none. */
export async function isUnplaced(db: Db, id: string): Promise<boolean> {
  const row = await db
    .selectFrom('capsules')
    .select('id')
    .where('id', '=', id)
    .where('host_id', 'is', null)
    .where('stored_state', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

/** The same of a snapshot. */
export async function findHostOfSnapshot(db: Db, id: string): Promise<string | null | undefined> {
  return (await db.selectFrom('snapshots').select('host_id').where('id', '=', id).executeTakeFirst())?.host_id
}

/** Whether a capsule, of which this is the `host_id`, is on a host as far as is known; `undefined`: there is one host, which has all. */
export function isOnHost(column: RawBuilder<unknown>, hostId: string | undefined): RawBuilder<SqlBool> {
  return hostId === undefined ? sql<SqlBool>`true` : sql<SqlBool>`coalesce(${column}, ${hostId}) = ${hostId}`
}
