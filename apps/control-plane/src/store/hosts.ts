import { sql } from 'kysely'
import type { Db } from './database.js'

interface SeenHost {
  readonly id: string
  readonly address: string
  readonly agentVersion: string
  readonly engine: string
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

/**
 * Notes that the host at an address does not answer, unless a control plane has heard of it within `silentMs`. Of those that had the address before
 * nothing is noted.
 */
export async function recordSilence(db: Db, address: string, silentMs: number): Promise<void> {
  await sql`UPDATE hosts SET told_state = 'down'
    WHERE id = (SELECT id FROM hosts WHERE address = ${address} ORDER BY last_seen_at DESC LIMIT 1)
      AND told_state = 'up' AND last_seen_at < now() - ${silentMs} * interval '1 millisecond'`.execute(db)
}
