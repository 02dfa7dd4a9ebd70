import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { EventRow } from './schema.js'

/** A place between events of a team: after the one with these numbers. */
export interface EventPlace {
  /** Number of the transaction. */
  readonly xid: string
  /** Number within all events. */
  readonly id: number
}

/** What comes after a place. */
export interface EventsAfter {
  /** In the order that everybody sees them in. */
  readonly events: readonly EventRow[]
  /** Some are there that may not be told yet: a transaction that began before them is still open, and its events come first. */
  readonly isHeld: boolean
}

const isAfter = ({ xid, id }: EventPlace) => sql<SqlBool>`(xid, id) > (${xid}::xid8, ${id}::bigint)`

/** Up to `limit` of them. */
export async function listEvents(db: Db, teamId: string, after: EventPlace, limit: number): Promise<EventsAfter> {
  const rows = await db
    .selectFrom('events')
    .selectAll()
    .select(sql<boolean>`xid < pg_snapshot_xmin(pg_current_snapshot())`.as('isSettled'))
    .where('team_id', '=', teamId)
    .where(isAfter(after))
    .orderBy('xid')
    .orderBy('id')
    .limit(limit)
    .execute()
  const events = rows.filter(({ isSettled }) => isSettled)
  return { events, isHeld: events.length < rows.length }
}

/** Counts no further than `limit`. */
export async function countEvents(db: Db, teamId: string, after: EventPlace, limit: number): Promise<number> {
  const some = db.selectFrom('events').select('id').where('team_id', '=', teamId).where(isAfter(after)).limit(limit)
  const { count } = await db
    .selectFrom(some.as('some'))
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .executeTakeFirstOrThrow()
  return count
}

/** All that commits from now on comes after it. */
export async function currentEventPlace(db: Db): Promise<EventPlace> {
  const { rows } = await sql<{ xid: string }>`SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xid`.execute(db)
  return { xid: rows[0]?.xid ?? '0', id: 0 }
}

/** Whether the database has been there; one that was restored from a copy may not. */
export async function hasReached(db: Db, { xid }: EventPlace): Promise<boolean> {
  const { rows } = await sql<{
    reached: boolean
  }>`SELECT ${xid}::xid8 <= pg_snapshot_xmax(pg_current_snapshot()) AS reached`.execute(db)
  return rows[0]?.reached ?? false
}

/** Forgets up to `limit` events that are older. @returns how many */
export async function pruneEvents(db: Db, olderThanMs: number, limit: number): Promise<number> {
  const { numAffectedRows = 0n } = await sql`DELETE FROM events WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM events WHERE at < now() - ${olderThanMs} * interval '1 millisecond' ORDER BY at LIMIT ${limit}))`.execute(
    db,
  )
  return Number(numAffectedRows)
}
