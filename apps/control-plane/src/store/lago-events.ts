import { sql } from 'kysely'
import type { Db } from './database.js'

/** What is told of, by its name in the database and in events. */
export const lagoMetrics = [
  'vcpu_seconds',
  'memory_gib_seconds',
  'disk_gib_seconds',
  'net_rx_bytes',
  'net_tx_bytes',
] as const
/** One of them. */
export type LagoMetric = (typeof lagoMetrics)[number]

/** How much a sum of a team and a day has become more; never changed once it is there. */
export interface LagoEvent {
  readonly seq: number
  readonly teamId: string
  readonly date: string
  readonly metric: LagoMetric
  /** From 1 on, of a sum. */
  readonly revision: number
  /** Exact, as text; less than nothing where the sum had been too high. */
  readonly value: string
}

/** Who may send, until when; only one has it at a time. */
export interface LagoLease {
  readonly lease: number
  /** Of Lago as a whole, in a row. */
  readonly failures: number
}

/** How a turn ended. */
export interface LagoTurnEnd {
  readonly delayMs: number
  readonly failures: number
  /** `null`: it goes on well. */
  readonly problem: string | null
}

/** One that was refused for itself. */
export interface LagoRefusal {
  readonly seq: number
  readonly reason: string
}

/** What has not been taken yet. */
export interface LagoBacklog {
  /** Those that were refused included. */
  readonly waiting: number
  readonly refused: number
  readonly oldestAt: Date | null
  /** Of one that was refused. */
  readonly reason: string | null
  /** Why nothing is sent now. */
  readonly problem: string | null
}

const ms = (value: number) => sql`${value} * interval '1 millisecond'`
/** Of one that is refused, from a half to all of a minute that doubles, up to a day. */
const refusedFor = sql`least(interval '1 day', interval '1 minute' * 2 ^ least(attempts, 11)) * (0.5 + random() / 2)`

/** The first day that is told of: the one that is under way when it is asked for the first time. */
export async function beginLago(db: Db): Promise<string> {
  await sql`UPDATE lago_state SET since = (SELECT (greatest(usage_clock(), closed_until) AT TIME ZONE 'UTC')::date FROM usage_state)
    WHERE since IS NULL`.execute(db)
  const { rows } = await sql<{ since: string }>`SELECT since::text AS since FROM lago_state`.execute(db)
  const [state] = rows
  if (state === undefined) throw new Error('the state of Lago is missing')
  return state.since
}

/** Takes the right to send for `leaseMs`, when there is something to do and it is time for it; `undefined`: not now, or another has it. */
export async function takeLago(db: Db, since: string, leaseMs: number): Promise<LagoLease | undefined> {
  const { rows } =
    await sql<LagoLease>`UPDATE lago_state SET lease = lease + 1, leased_until = clock_timestamp() + ${ms(leaseMs)}
    WHERE next_at <= clock_timestamp() AND (leased_until IS NULL OR leased_until < clock_timestamp()) AND (
      EXISTS (SELECT FROM usage_changed_days WHERE date >= ${since}::date)
      OR EXISTS (SELECT FROM lago_events WHERE taken_at IS NULL AND attempts = 0)
      OR EXISTS (SELECT FROM lago_events WHERE taken_at IS NULL AND attempts > 0 AND next_at <= now()))
    RETURNING lease, failures`.execute(db)
  return rows[0]
}

/** Has it for `leaseMs` from now on. @returns whether it is still ours */
export async function renewLago(db: Db, { lease }: LagoLease, leaseMs: number): Promise<boolean> {
  const { numAffectedRows } =
    await sql`UPDATE lago_state SET leased_until = clock_timestamp() + ${ms(leaseMs)} WHERE lease = ${lease}`.execute(
      db,
    )
  return numAffectedRows === 1n
}

/** Gives it back; nobody has it before the time is over that Lago, or we, need a rest. */
export async function releaseLago(
  db: Db,
  { lease }: LagoLease,
  { delayMs, failures, problem }: LagoTurnEnd,
): Promise<void> {
  await sql`UPDATE lago_state SET leased_until = NULL, next_at = clock_timestamp() + ${ms(delayMs)},
    failures = ${failures}, problem = ${problem} WHERE lease = ${lease}`.execute(db)
}

/**
 * Writes what is to be told of the oldest day whose sums have changed: of each sum what it differs by from all that was told of it. Sums have six
 * places, as seconds of clocks have.
 * @returns whether there was one
 */
export async function queueChangedDay(db: Db, since: string): Promise<boolean> {
  return await db.transaction().execute(async (tx) => {
    // Whoever writes the day's sums anew waits for the end of this, and notes the day again.
    const { rows } = await sql<{ date: string }>`DELETE FROM usage_changed_days WHERE date = (
        SELECT date FROM usage_changed_days WHERE date >= ${since}::date ORDER BY date LIMIT 1 FOR UPDATE SKIP LOCKED)
      RETURNING date::text AS date`.execute(tx)
    const [day] = rows
    if (day === undefined) return false
    await sql`INSERT INTO lago_events (team_id, date, metric, revision, value)
      SELECT team_id, ${day.date}::date, metric, coalesce(told.revision, 0) + 1, coalesce(used.value, 0) - coalesce(told.value, 0)
      FROM (SELECT team_id, metric, value FROM (
            SELECT team_id, sum(vcpu_seconds) AS vcpu, sum(memory_mib_seconds) AS memory, sum(disk_mib_seconds) AS disk,
              sum(net_rx_bytes) AS rx, sum(net_tx_bytes) AS tx
            FROM usage_rollups WHERE period = 'day' AND date = ${day.date}::date GROUP BY team_id) AS sums
          CROSS JOIN LATERAL (VALUES ('vcpu_seconds', round(vcpu, 6)), ('memory_gib_seconds', round(memory / 1024, 6)),
            ('disk_gib_seconds', round(disk / 1024, 6)), ('net_rx_bytes', rx), ('net_tx_bytes', tx))
            AS each (metric, value)) AS used
        FULL JOIN (SELECT team_id, metric, sum(value) AS value, max(revision) AS revision FROM lago_events
          WHERE date = ${day.date}::date GROUP BY 1, 2) AS told USING (team_id, metric)
      WHERE coalesce(used.value, 0) <> coalesce(told.value, 0)
      ORDER BY team_id, metric`.execute(tx)
    return true
  })
}

/** Up to `limit` of those that wait, in the order in which they were written; of those that were refused only when there is no other. */
export async function listDueLagoEvents(db: Db, limit: number): Promise<LagoEvent[]> {
  const columns = sql`seq, team_id AS "teamId", date::text AS date, metric, revision, trim_scale(value)::text AS value`
  const fresh = await sql<LagoEvent>`SELECT ${columns} FROM lago_events
    WHERE taken_at IS NULL AND attempts = 0 ORDER BY seq LIMIT ${limit}`.execute(db)
  if (fresh.rows.length > 0) return fresh.rows
  const refused = await sql<LagoEvent>`SELECT ${columns} FROM lago_events
    WHERE taken_at IS NULL AND attempts > 0 AND next_at <= now() ORDER BY next_at, seq LIMIT ${limit}`.execute(db)
  return refused.rows
}

/** Notes which of them Lago has, and which it refused for themselves: these are tried again later and later. */
export async function recordLago(db: Db, taken: readonly number[], refused: readonly LagoRefusal[]): Promise<void> {
  await db.transaction().execute(async (tx) => {
    await sql`UPDATE lago_events SET taken_at = now(), reason = NULL WHERE seq = ANY (${taken}::bigint[]) AND taken_at IS NULL`.execute(
      tx,
    )
    await sql`UPDATE lago_events SET attempts = attempts + 1, next_at = now() + ${refusedFor}, reason = said.reason
      FROM unnest(${refused.map(({ seq }) => seq)}::bigint[], ${refused.map(({ reason }) => reason)}::text[]) AS said (seq, reason)
      WHERE lago_events.seq = said.seq AND taken_at IS NULL`.execute(tx)
  })
}

/** What waits, and why. */
export async function findLagoBacklog(db: Db): Promise<LagoBacklog> {
  const { rows } =
    await sql<LagoBacklog>`SELECT count(*)::int AS waiting, (count(*) FILTER (WHERE attempts > 0))::int AS refused,
      min(queued_at) AS "oldestAt", (array_agg(reason ORDER BY seq) FILTER (WHERE attempts > 0))[1] AS reason,
      (SELECT problem FROM lago_state) AS problem
    FROM lago_events WHERE taken_at IS NULL`.execute(db)
  const [backlog] = rows
  if (backlog === undefined) throw new Error('an aggregate without a row')
  return backlog
}
