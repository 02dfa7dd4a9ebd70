import { type CapsuleState, heldIn } from '@wrenn/protocol'
import { type RawBuilder, sql } from 'kysely'
import type { Db } from './database.js'

/** Days in UTC as `2026-11-30`, both included. */
export interface DaySpan {
  readonly from: string
  readonly to: string
}

/** Of one team, or of all. */
export type Whose = string | undefined

type Holding = (typeof heldIn)[keyof typeof heldIn]

const entries = Object.entries(heldIn) as [CapsuleState, Holding][] // of a constant whose keys are states
const inStates = (...holdings: readonly Holding[]) =>
  sql`l.state IN (${sql.join(entries.filter(([, holding]) => holdings.includes(holding)).map(([state]) => sql.lit(state)))})`
const isAwake = inStates('awake')
const isAsleep = inStates('asleep')
const isHeld = inStates('awake', 'asleep', 'kept')

/** When a day begins, wherever the session thinks it is. */
export const beginOfDay = (day: string | RawBuilder<unknown>) => sql<Date>`(${day}::date::timestamp AT TIME ZONE 'UTC')`
const isOf = (teamId: Whose): RawBuilder<unknown> => (teamId === undefined ? sql`true` : sql`l.team_id = ${teamId}`)
/** What is open lasts until now; where the clock was set back, until the end of the days that are closed. */
export const ledgerNow = sql<Date>`(SELECT greatest(usage_clock(), closed_until) FROM usage_state)`

/** The columns of sums, in the tables of roll-ups as here. */
export const sumColumns = [
  'vcpu_seconds',
  'memory_mib_seconds',
  'paused_mib_seconds',
  'disk_mib_seconds',
  'net_rx_bytes',
  'net_tx_bytes',
] as const

/** Days, of which the first may be worked out by the database. */
interface Days {
  readonly from: string | RawBuilder<unknown>
  readonly to: string
}

/** A select of what was used by team, UTC day and template: of the ledger, and of what was received and sent. */
export function usedByDay(days: Days, teamId: Whose): RawBuilder<unknown> {
  const added = sumColumns.map((column) => sql`sum(${sql.ref(column)}) AS ${sql.ref(column)}`)
  return sql`SELECT team_id, date, template, ${sql.join(added)}
    FROM (${heldByDay(days, teamId)} UNION ALL ${sentByDay(days, teamId)}) AS used GROUP BY 1, 2, 3`
}

function sentByDay({ from, to }: Days, teamId: Whose): RawBuilder<unknown> {
  return sql`SELECT l.team_id, l.date, l.template, 0, 0, 0, 0, l.rx_bytes, l.tx_bytes FROM usage_traffic AS l
    WHERE ${isOf(teamId)} AND l.date >= ${from}::date AND l.date <= ${to}::date`
}

/** Exact to the microsecond: the sum over the ledger's entries of size times the time that lies in the day. */
function heldByDay({ from, to }: Days, teamId: Whose): RawBuilder<unknown> {
  return sql`SELECT l.team_id, d.day::date AS date, l.template,
      coalesce(sum(l.vcpus * s.sec) FILTER (WHERE ${isAwake}), 0) AS vcpu_seconds,
      coalesce(sum(l.memory_mib * s.sec) FILTER (WHERE ${isAwake}), 0) AS memory_mib_seconds,
      coalesce(sum(l.memory_mib * s.sec) FILTER (WHERE ${isAsleep}), 0) AS paused_mib_seconds,
      sum(l.disk_size_mib * s.sec) AS disk_mib_seconds, 0 AS net_rx_bytes, 0 AS net_tx_bytes
    FROM usage_ledger AS l
      CROSS JOIN (SELECT ${beginOfDay(from)} AS begins, ${beginOfDay(to)} + interval '24 hours' AS ends, ${ledgerNow} AS now) AS span
      CROSS JOIN LATERAL (SELECT greatest(l.began_at, span.begins) AT TIME ZONE 'UTC' AS begins,
        least(coalesce(l.ended_at, span.now), span.ends) AT TIME ZONE 'UTC' AS ends) AS p
      CROSS JOIN LATERAL generate_series(date_trunc('day', p.begins), p.ends, interval '1 day') AS d (day)
      CROSS JOIN LATERAL (SELECT extract(epoch FROM least(p.ends, d.day + interval '1 day') - greatest(p.begins, d.day)) AS sec) AS s
    WHERE ${isOf(teamId)} AND ${isHeld} AND s.sec > 0
      AND l.began_at < ${beginOfDay(to)} + interval '24 hours' AND (l.ended_at IS NULL OR l.ended_at > ${beginOfDay(from)})
    GROUP BY 1, 2, 3`
}

/** The level of something in a bucket of time. */
export interface Bucket {
  readonly teamId: string
  readonly at: Date
  /** Whether the first change is at its very begin; else it begins with the last level of the one before. */
  readonly isFromBegin: boolean
  readonly highest: Levels
  /** At its end. */
  readonly last: Levels
}

/** What capsules hold at a time; memory of paused ones counts half. */
export interface Levels {
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
}

interface BucketRow {
  readonly teamId: string
  readonly at: Date
  readonly isFromBegin: boolean
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  readonly lastRunning: number
  readonly lastVcpus: number
  readonly lastMemoryMib: number
}

const levels = sql`CASE WHEN ${isAwake} THEN 1 ELSE 0 END AS running,
  CASE WHEN ${isAwake} THEN l.vcpus ELSE 0 END AS vcpus,
  CASE WHEN ${isAwake} THEN l.memory_mib ELSE (l.memory_mib + 1) / 2 END AS memory_mib`

/**
 * Levels in buckets of `stepSec`, which begin at multiples of it, from the one at `from` to before `to`. Of each team those are there in
 * which something changed, in the order of time; the first is always the one at `from`, unless nothing was held then.
 */
export async function findBuckets(
  db: Db,
  { from, to, stepSec }: { readonly from: Date; readonly to: Date; readonly stepSec: number },
  teamId: Whose,
): Promise<Bucket[]> {
  const bin = (at: string) =>
    sql`date_bin(${sql.lit(stepSec)} * interval '1 second', ${sql.ref(at)}, timestamptz '1970-01-01 00:00:00Z')`
  const { rows } = await sql<BucketRow>`WITH held AS (
      SELECT l.team_id, greatest(l.began_at, ${from}) AS begins, l.ended_at AS ends, ${levels} FROM usage_ledger AS l
      WHERE ${isOf(teamId)} AND (${isAwake} OR ${isAsleep}) AND l.began_at < ${to}
        AND (l.ended_at IS NULL OR (l.ended_at > ${from} AND l.ended_at > l.began_at))),
    change AS (
      SELECT team_id, at, sum(running) AS running, sum(vcpus) AS vcpus, sum(memory_mib) AS memory_mib
      FROM (SELECT team_id, begins AS at, running, vcpus, memory_mib FROM held
        UNION ALL SELECT team_id, ends, -running, -vcpus, -memory_mib FROM held WHERE ends < ${to}) AS each
      GROUP BY team_id, at),
    level AS (
      SELECT team_id, at, sum(running) OVER up AS running, sum(vcpus) OVER up AS vcpus, sum(memory_mib) OVER up AS memory_mib
      FROM change WINDOW up AS (PARTITION BY team_id ORDER BY at)),
    last AS (
      SELECT DISTINCT ON (team_id, ${bin('at')}) team_id, ${bin('at')} AS bucket, running, vcpus, memory_mib
      FROM level ORDER BY team_id, ${bin('at')}, at DESC),
    most AS (
      SELECT team_id, ${bin('at')} AS bucket, min(at) AS first_at, max(running) AS running, max(vcpus) AS vcpus,
        max(memory_mib) AS memory_mib FROM level GROUP BY 1, 2)
    SELECT most.team_id AS "teamId", most.bucket AS at, most.first_at = most.bucket AS "isFromBegin",
      most.running::bigint AS running, most.vcpus::bigint AS vcpus, most.memory_mib::bigint AS "memoryMib",
      last.running::bigint AS "lastRunning", last.vcpus::bigint AS "lastVcpus", last.memory_mib::bigint AS "lastMemoryMib"
    FROM most JOIN last USING (team_id, bucket) ORDER BY 1, 2`.execute(db)
  return rows.map(({ teamId: team, at, isFromBegin, running, vcpus, memoryMib, ...last }) => ({
    ...{ teamId: team, at, isFromBegin, highest: { running, vcpus, memoryMib } },
    last: { running: last.lastRunning, vcpus: last.lastVcpus, memoryMib: last.lastMemoryMib },
  }))
}

/** What a team's capsules hold now, and what time it is for the ledger. */
export async function findLevels(db: Db, teamId: string): Promise<Levels & { readonly now: Date }> {
  const { rows } = await sql<Levels & { readonly now: Date }>`SELECT ${ledgerNow} AS now,
      coalesce(sum(running), 0)::bigint AS running, coalesce(sum(vcpus), 0)::bigint AS vcpus,
      coalesce(sum(memory_mib), 0)::bigint AS "memoryMib"
    FROM (SELECT ${levels} FROM usage_ledger AS l
      WHERE l.team_id = ${teamId} AND l.ended_at IS NULL AND (${isAwake} OR ${isAsleep})) AS held`.execute(db)
  const [now] = rows
  if (now === undefined) throw new Error('an aggregate without a row')
  return now
}

/** Capsules whose open entry is not what they are, or that have none, or none of which are; up to `limit`. */
export async function findStrays(db: Db, teamId: Whose, limit: number): Promise<string[]> {
  const ofTeam = teamId === undefined ? sql`true` : sql`team_id = ${teamId}`
  const { rows } = await sql<{ id: string }>`SELECT coalesce(c.id, l.capsule_id) AS id
    FROM (SELECT * FROM capsules WHERE state <> 'stopped' AND ${ofTeam}) AS c
      FULL JOIN (SELECT * FROM usage_ledger WHERE ended_at IS NULL AND ${ofTeam}) AS l ON l.capsule_id = c.id
    WHERE (c.team_id, c.template, c.state, c.vcpus, c.memory_mib, c.disk_size_mib)
      IS DISTINCT FROM (l.team_id, l.template, l.state, l.vcpus, l.memory_mib, l.disk_size_mib)
    ORDER BY 1 LIMIT ${limit}`.execute(db)
  return rows.map(({ id }) => id)
}
