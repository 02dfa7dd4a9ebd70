import type { CapsuleState } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from './database.js'
import { inSeconds } from './in-seconds.js'
import type { CapsuleRow, EndOfLife } from './schema.js'

/** After a sleep a capsule has at least this long, however short it was asked to live (as clients made for E2B know it). */
const MIN_RENEWED_SEC = 300

const begins: ReadonlySet<CapsuleState> = new Set(['pending', 'starting'])
const wakes: ReadonlySet<CapsuleState> = new Set(['paused', 'resuming', 'hibernated'])

/**
 * What a move to `state` makes of a capsule's life: it begins anew when the capsule comes to run. Out of other states, such as a pause that
 * failed or a host that was silent, it goes on.
 */
export function renewedLife(
  row: Pick<CapsuleRow, 'state' | 'lifetime_sec'>,
  state: CapsuleState,
  nowMs: number = Date.now(),
): { readonly ends_at?: Date } {
  if (state !== 'running' || row.lifetime_sec === null) return {}
  if (begins.has(row.state)) return { ends_at: new Date(nowMs + row.lifetime_sec * 1000) }
  if (!wakes.has(row.state)) return {}
  return { ends_at: new Date(nowMs + Math.max(MIN_RENEWED_SEC, row.lifetime_sec) * 1000) }
}

/** A capsule that is still there although its life is over. */
export interface EndedLife {
  readonly id: string
  readonly team_id: string
  readonly on_end: EndOfLife
}

interface EndBackoff {
  readonly firstMs: number
  readonly maxMs: number
}

/**
 * Capsules whose life is over, the longest first: those that run, and of those whose guest ended by itself the ones that were to be destroyed,
 * whose files are still there. One whose pause has failed since is left alone for a while, twice as long after every failure.
 */
export async function findEnded(db: Db, limit: number, { firstMs, maxMs }: EndBackoff): Promise<readonly EndedLife[]> {
  const { rows } = await sql<EndedLife>`SELECT c.id, c.team_id, c.on_end FROM capsules AS c
    CROSS JOIN LATERAL (
      SELECT count(*) AS failures, max(o.updated_at) AS failed_at FROM operations AS o
      WHERE o.capsule_id = c.id AND o.kind = 'pause' AND o.state = 'failed' AND o.updated_at > c.ends_at
    ) AS tried
    WHERE (c.state = 'running' OR (c.state = 'error' AND c.on_end = 'kill')) AND c.ends_at <= now()
      AND (c.on_end = 'kill' OR tried.failures = 0 OR tried.failed_at
        + least(${maxMs}::float8, ${firstMs}::float8 * power(2, least(tried.failures - 1, 20))) * interval '1 millisecond' <= now())
    ORDER BY c.ends_at LIMIT ${limit}`.execute(db)
  return rows
}

/** Where a new end counts at once. */
const livesIn: readonly CapsuleState[] = ['pending', 'starting', 'running', 'missing']

/** Whether a capsule in this state has an end that can be moved. One that sleeps gets a new one when it wakes. */
export function hasEnd(state: CapsuleState): boolean {
  return livesIn.includes(state)
}

/** While it starts, its life has not begun: what it is told then is how long it will be. */
const STARTS = sql<boolean>`state IN ('pending', 'starting')`

/**
 * Lets a capsule's life end `lifetimeSec` from now, sooner or later than it would have; of one that starts, from when it runs. One that had no
 * end is paused then: it was made to stay.
 * @returns `undefined` when the capsule does not run
 */
export async function setEnd(db: Db, id: string, lifetimeSec: number): Promise<CapsuleRow | undefined> {
  return await db
    .updateTable('capsules')
    .set((eb) => ({
      ends_at: inSeconds(lifetimeSec),
      lifetime_sec: sql<number>`CASE WHEN ${STARTS} THEN ${lifetimeSec}::int ELSE coalesce(lifetime_sec, ${lifetimeSec}::int) END`,
      on_end: eb.fn.coalesce('on_end', eb.val<EndOfLife>('pause')),
      updated_at: new Date(),
    }))
    .where('id', '=', id)
    .where('state', 'in', livesIn)
    .returningAll()
    .executeTakeFirst()
}

/** Lets it end no sooner than that. @returns `undefined` when nothing had to be changed, or the capsule does not run */
export async function extendEnd(db: Db, id: string, lifetimeSec: number): Promise<CapsuleRow | undefined> {
  return await db
    .updateTable('capsules')
    .set({
      ends_at: sql<Date>`greatest(ends_at, ${inSeconds(lifetimeSec)})`,
      lifetime_sec: sql<number>`CASE WHEN ${STARTS} THEN greatest(lifetime_sec, ${lifetimeSec}::int) ELSE lifetime_sec END`,
      updated_at: new Date(),
    })
    .where('id', '=', id)
    .where('state', 'in', livesIn)
    .where(sql<boolean>`(ends_at < ${inSeconds(lifetimeSec)} OR ${STARTS} AND lifetime_sec < ${lifetimeSec}::int)`)
    .returningAll()
    .executeTakeFirst()
}
