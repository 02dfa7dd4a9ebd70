import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { DeliveryAnswer, DeliveryRequest, DeliveryRow } from './schema.js'

/** The oldest ones that wait, in their order. Of one lane that is the order in which it happened: who changes a capsule waits for who did before. */
export async function listPending(
  db: Db,
  channelId: string,
  limit: number,
  exceptLanes: readonly string[] = [],
): Promise<DeliveryRow[]> {
  return await db
    .selectFrom('channel_deliveries')
    .selectAll()
    .where('channel_id', '=', channelId)
    .where('state', '=', 'pending')
    .where(sql<SqlBool>`lane <> ALL (${exceptLanes}::text[])`)
    .orderBy('seq')
    .limit(limit)
    .execute()
}

/** What an attempt came to. */
export interface AttemptRecord {
  readonly seq: number
  readonly state: DeliveryRow['state']
  readonly reason: string | null
  readonly request: DeliveryRequest
  readonly answer: DeliveryAnswer | null
}

/**
 * Notes attempts, all at once. What somebody else has ended meanwhile stays as it is. Whoever waits for rows here locks them in the order of
 * `seq`, so that no two wait for each other.
 */
export async function recordAttempts(db: Db, attempts: readonly AttemptRecord[]): Promise<void> {
  if (attempts.length === 0) return
  await sql`WITH t AS (
      SELECT * FROM jsonb_to_recordset(${JSON.stringify(attempts)}::jsonb)
        AS t (seq bigint, state text, reason text, request jsonb, answer jsonb)
    ), locked AS MATERIALIZED (
      SELECT seq FROM channel_deliveries WHERE seq IN (SELECT seq FROM t) AND state = 'pending' ORDER BY seq FOR UPDATE
    )
    UPDATE channel_deliveries AS d SET
      state = t.state, reason = t.reason, request = t.request, answer = t.answer, attempts = d.attempts + 1,
      ended_at = CASE WHEN t.state = 'pending' THEN NULL ELSE now() END
    FROM t JOIN locked USING (seq)
    WHERE d.seq = t.seq AND d.state = 'pending'`.execute(db)
}

/** Counts what waits no further than `limit`, for each channel. */
export async function countPending(
  db: Db,
  channelIds: readonly string[],
  limit: number,
): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql<{ id: string; count: number }>`SELECT c.id, (
      SELECT count(*) FROM (
        SELECT FROM channel_deliveries WHERE channel_id = c.id AND state = 'pending' LIMIT ${limit}
      ) AS waiting
    ) AS count FROM unnest(${channelIds}::text[]) AS c (id)`.execute(db)
  return new Map(rows.map(({ id, count }) => [id, count]))
}

/** Which of a channel's deliveries are listed. */
interface LogPage {
  readonly state: DeliveryRow['state'] | undefined
  /** `seq` of the last one of the page before. */
  readonly before: number | undefined
  readonly limit: number
}

/** Newest first. */
export async function listDeliveries(
  db: Db,
  channelId: string,
  { state, before, limit }: LogPage,
): Promise<DeliveryRow[]> {
  const states = state === undefined ? (['pending', 'delivered', 'dead'] as const) : [state]
  // A page of each state, by its own index, and of these the newest.
  const pages = await Promise.all(
    states.map((each) => {
      let query = db
        .selectFrom('channel_deliveries')
        .selectAll()
        .where('channel_id', '=', channelId)
        .where('state', '=', each)
      if (before !== undefined) query = query.where('seq', '<', before)
      return query.orderBy('seq', 'desc').limit(limit).execute()
    }),
  )
  return pages
    .flat()
    .sort((one, other) => other.seq - one.seq)
    .slice(0, limit)
}

export async function findDelivery(db: Db, channelId: string, id: string): Promise<DeliveryRow | undefined> {
  return await db
    .selectFrom('channel_deliveries')
    .selectAll()
    .where('channel_id', '=', channelId)
    .where('id', '=', id)
    .executeTakeFirst()
}

/** Has it wait again, as one that is new. `undefined` when it does already. */
export async function requeueDelivery(db: Db, channelId: string, id: string): Promise<DeliveryRow | undefined> {
  return await db
    .updateTable('channel_deliveries')
    .set(waiting)
    .where('channel_id', '=', channelId)
    .where('id', '=', id)
    .where('state', '<>', 'pending')
    .returningAll()
    .executeTakeFirst()
}

/** Which part of what was given up waits again. */
interface RequeuePart {
  /** `seq` of the last one of the part before. */
  readonly after: number
  readonly limit: number
}

/** Has some of what was given up wait again, the oldest first. @returns the `seq` of each */
export async function requeueDead(db: Db, channelId: string, { after, limit }: RequeuePart): Promise<number[]> {
  const { rows } = await sql<{ seq: number }>`WITH locked AS MATERIALIZED (
      SELECT seq FROM channel_deliveries WHERE channel_id = ${channelId} AND state = 'dead' AND seq > ${after}
      ORDER BY seq LIMIT ${limit} FOR UPDATE
    )
    UPDATE channel_deliveries AS d SET state = 'pending', attempts = 0, queued_at = now(), ended_at = NULL
    FROM locked WHERE d.seq = locked.seq
    RETURNING d.seq`.execute(db)
  return rows.map(({ seq }) => seq)
}

const waiting = { state: 'pending', attempts: 0, queued_at: sql<Date>`now()`, ended_at: null } as const

/** Tells whoever sends that there is something to send. */
export async function announceDeliveries(db: Db): Promise<void> {
  await sql`SELECT pg_notify('channel_due', '')`.execute(db)
}

/** Gives up what has waited for longer, some of it. @returns how many */
export async function giveUpOverdue(db: Db, olderThanMs: number, limit: number): Promise<number> {
  const { numAffectedRows = 0n } = await sql`UPDATE channel_deliveries SET
      state = 'dead', ended_at = now(), reason = coalesce(reason, 'The channel was switched off.')
    WHERE state = 'pending' AND seq IN (
      SELECT seq FROM channel_deliveries WHERE state = 'pending' AND queued_at < now() - ${olderThanMs} * interval '1 millisecond'
      LIMIT ${limit} FOR UPDATE SKIP LOCKED)`.execute(db)
  return Number(numAffectedRows)
}

/** Gives up some of the oldest that wait beyond `keep` of a channel. @returns how many */
export async function giveUpExcess(db: Db, keep: number, limit: number): Promise<number> {
  const { numAffectedRows = 0n } = await sql`WITH last AS MATERIALIZED (
      SELECT c.id, d.seq FROM channels AS c CROSS JOIN LATERAL (
        SELECT seq FROM channel_deliveries WHERE channel_id = c.id AND state = 'pending'
        ORDER BY seq DESC OFFSET ${keep} LIMIT 1
      ) AS d
    )
    UPDATE channel_deliveries SET
      state = 'dead', ended_at = now(), reason = ${`More than ${keep} events waited for the channel.`}
    WHERE state = 'pending' AND seq IN (
      SELECT d.seq FROM last JOIN channel_deliveries AS d
        ON d.channel_id = last.id AND d.state = 'pending' AND d.seq <= last.seq
      ORDER BY d.seq LIMIT ${limit} FOR UPDATE OF d SKIP LOCKED)`.execute(db)
  return Number(numAffectedRows)
}

/** Forgets some of the oldest that have ended beyond `keep` of a channel. @returns how many */
export async function pruneExcess(db: Db, keep: number, limit: number): Promise<number> {
  const newest = (state: DeliveryRow['state']) => sql`(SELECT seq FROM channel_deliveries
    WHERE channel_id = c.id AND state = ${state} ORDER BY seq DESC LIMIT ${keep + 1})`
  const { numAffectedRows = 0n } = await sql`WITH last AS MATERIALIZED (
      SELECT c.id, d.seq FROM channels AS c CROSS JOIN LATERAL (
        ${newest('delivered')} UNION ALL ${newest('dead')} ORDER BY seq DESC OFFSET ${keep} LIMIT 1
      ) AS d
    )
    DELETE FROM channel_deliveries WHERE seq IN (
      SELECT d.seq FROM last JOIN channel_deliveries AS d
        ON d.channel_id = last.id AND d.state IN ('delivered', 'dead') AND d.seq <= last.seq
      ORDER BY d.seq LIMIT ${limit} FOR UPDATE OF d SKIP LOCKED)`.execute(db)
  return Number(numAffectedRows)
}

/** Forgets what ended longer ago, some of it. @returns how many */
export async function pruneDeliveries(db: Db, olderThanMs: number, limit: number): Promise<number> {
  const { numAffectedRows = 0n } = await sql`DELETE FROM channel_deliveries WHERE seq IN (
      SELECT seq FROM channel_deliveries WHERE state <> 'pending' AND ended_at < now() - ${olderThanMs} * interval '1 millisecond'
      LIMIT ${limit} FOR UPDATE SKIP LOCKED)`.execute(db)
  return Number(numAffectedRows)
}

/** Forgets some of what belongs to no channel any more. @returns how many */
export async function pruneOrphans(db: Db, limit: number): Promise<number> {
  const { rows } = await sql<{ channel_id: string }>`WITH RECURSIVE each AS (
      (SELECT channel_id FROM channel_deliveries ORDER BY channel_id LIMIT 1)
      UNION ALL SELECT (SELECT d.channel_id FROM channel_deliveries AS d WHERE d.channel_id > each.channel_id ORDER BY d.channel_id LIMIT 1)
      FROM each WHERE each.channel_id IS NOT NULL
    ) SELECT channel_id FROM each WHERE channel_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM channels AS c WHERE c.id = each.channel_id)`.execute(db)
  const ids = rows.map((row) => row.channel_id)
  if (ids.length === 0) return 0
  const { numAffectedRows = 0n } = await sql`DELETE FROM channel_deliveries WHERE seq IN (
      SELECT seq FROM channel_deliveries WHERE ${sql<SqlBool>`channel_id = ANY (${ids}::text[])`} LIMIT ${limit}
      FOR UPDATE SKIP LOCKED)`.execute(db)
  return Number(numAffectedRows)
}
