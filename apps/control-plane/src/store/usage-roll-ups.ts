import type { UsagePeriod } from '@wrenn/protocol'
import { type RawBuilder, sql } from 'kysely'
import type { Db } from './database.js'
import { beginOfDay, type DaySpan, type Levels, ledgerNow, sumColumns, usedByDay, type Whose } from './usage-ledger.js'

const sums = sql.join(sumColumns.map((column) => sql.ref(column)))
const addedUp = sql.join(sumColumns.map((column) => sql`sum(${sql.ref(column)}) AS ${sql.ref(column)}`))
const asNumbers = sql`coalesce(sum(vcpu_seconds), 0)::float8 AS "vcpuSeconds",
  coalesce(sum(memory_mib_seconds), 0)::float8 AS "memoryMibSeconds",
  coalesce(sum(paused_mib_seconds), 0)::float8 AS "pausedMibSeconds",
  coalesce(sum(disk_mib_seconds), 0)::float8 AS "diskMibSeconds",
  coalesce(sum(net_rx_bytes), 0)::float8 AS "netRxBytes", coalesce(sum(net_tx_bytes), 0)::float8 AS "netTxBytes"`
const monthOf = (day: string) => sql`date_trunc('month', ${day}::date)::date`

/** What was used, as numbers for people: sums are exact in the database. */
export interface UsedSums {
  readonly vcpuSeconds: number
  readonly memoryMibSeconds: number
  readonly pausedMibSeconds: number
  readonly diskMibSeconds: number
  readonly netRxBytes: number
  readonly netTxBytes: number
}

/** How far the ledger is rolled up. */
export interface RollUpState {
  /** Nothing is entered any more before it. */
  readonly closedUntil: Date
  /** Days before it are rolled up. */
  readonly rolledUntil: string
  /** Days from it on can be rolled up anew. */
  readonly keptFrom: string
  /** By the ledger's clock. */
  readonly today: string
}

const stateColumns = sql`closed_until AS "closedUntil", rolled_until::text AS "rolledUntil", kept_from::text AS "keptFrom",
  (greatest(usage_clock(), closed_until) AT TIME ZONE 'UTC')::date::text AS today`

export async function findRollUpState(db: Db): Promise<RollUpState> {
  const { rows } = await sql<RollUpState>`SELECT ${stateColumns} FROM usage_state`.execute(db)
  const [state] = rows
  if (state === undefined) throw new Error('the state of usage is missing')
  return state
}

/** Holds the state until the end of the transaction, so that one at a time rolls up; `undefined` where another does. */
export async function lockRollUps(tx: Db): Promise<RollUpState | undefined> {
  const { rows } = await sql<RollUpState>`SELECT ${stateColumns} FROM usage_state
    FOR NO KEY UPDATE SKIP LOCKED`.execute(tx)
  return rows[0]
}

/** Closes the days that ended longer than `graceSec` ago: from the commit on, changes are entered after them. */
export async function closeDays(db: Db, graceSec: number): Promise<void> {
  await sql`UPDATE usage_state SET closed_until = ended.at
    FROM (SELECT date_trunc('day', (usage_clock() - ${graceSec} * interval '1 second') AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS at) AS ended
    WHERE closed_until < ended.at`.execute(db)
}

/** A mark that {@link havePassed} takes: transactions that are open now. */
export async function openTransactions(db: Db): Promise<string> {
  const { rows } = await sql<{ xid: string }>`SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xid`.execute(db)
  return rows[0]?.xid ?? '0'
}

/** Whether all that were open have ended. */
export async function havePassed(db: Db, xid: string): Promise<boolean> {
  const { rows } = await sql<{
    passed: boolean
  }>`SELECT pg_snapshot_xmin(pg_current_snapshot()) >= ${xid}::xid8 AS passed`.execute(db)
  return rows[0]?.passed ?? false
}

/** Writes what the ledger says of a day, and the month's sum of its days, in place of what was there. */
export async function rollUpDay(tx: Db, day: string): Promise<void> {
  // One that is noted already is held: whoever tells of the day before the commit would tell of the sums that are replaced here.
  await sql`INSERT INTO usage_changed_days (date) VALUES (${day}::date)
    ON CONFLICT (date) DO UPDATE SET date = EXCLUDED.date`.execute(tx)
  await sql`DELETE FROM usage_rollups WHERE period = 'day' AND date = ${day}::date`.execute(tx)
  await sql`INSERT INTO usage_rollups (team_id, period, date, template, ${sums})
    SELECT team_id, 'day', date, template, ${sums} FROM (${usedByDay({ from: day, to: day }, undefined)}) AS used`.execute(
    tx,
  )
  await sql`DELETE FROM usage_rollups WHERE period = 'month' AND date = ${monthOf(day)}`.execute(tx)
  await sql`INSERT INTO usage_rollups (team_id, period, date, template, ${sums})
    SELECT team_id, 'month', ${monthOf(day)}, template, ${addedUp} FROM usage_rollups
    WHERE period = 'day' AND date >= ${monthOf(day)} AND date < ${monthOf(day)} + interval '1 month'
    GROUP BY team_id, template`.execute(tx)
}

/** The highest levels of a team in a step. */
export interface Peak extends Levels {
  readonly teamId: string
  readonly at: Date
}

/** Writes the peaks of a day, in place of what was there. */
export async function putPeaks(tx: Db, day: string, peaks: readonly Peak[]): Promise<void> {
  await sql`DELETE FROM usage_peaks WHERE at >= ${beginOfDay(day)} AND at < ${beginOfDay(day)} + interval '24 hours'`.execute(
    tx,
  )
  await sql`INSERT INTO usage_peaks (team_id, at, running, vcpus, memory_mib)
    SELECT * FROM unnest(${peaks.map(({ teamId }) => teamId)}::text[], ${peaks.map(({ at }) => at.toISOString())}::timestamptz[],
      ${peaks.map(({ running }) => running)}::bigint[], ${peaks.map(({ vcpus }) => vcpus)}::bigint[],
      ${peaks.map(({ memoryMib }) => memoryMib)}::bigint[])`.execute(tx)
}

/** Of a team from a time on, oldest first. */
export async function findPeaks(db: Db, teamId: string, from: Date): Promise<Peak[]> {
  const { rows } = await sql<Peak>`SELECT team_id AS "teamId", at, running, vcpus, memory_mib AS "memoryMib"
    FROM usage_peaks WHERE team_id = ${teamId} AND at >= ${from} ORDER BY at`.execute(db)
  return rows
}

/** The first day that is not rolled up. */
export async function setRolledUntil(tx: Db, day: string): Promise<void> {
  await sql`UPDATE usage_state SET rolled_until = ${day}::date`.execute(tx)
}

/** What a team used by day or month, oldest first: from the roll-ups, and from the ledger what is not rolled up yet. */
export async function findUsageOf(
  db: Db,
  teamId: string,
  span: DaySpan,
  period: UsagePeriod,
): Promise<(UsedSums & { readonly date: string })[]> {
  const { rows } = await sql<UsedSums & { readonly date: string }>`SELECT date::text AS date, ${asNumbers}
    FROM (${together(span, period, teamId)}) AS used GROUP BY date ORDER BY date`.execute(db)
  return rows
}

/** What each team used, the most vCPU time first. A team that is gone for good has no name. */
export async function findUsageByTeam(
  db: Db,
  span: DaySpan,
): Promise<(UsedSums & { readonly teamId: string; readonly teamName: string | null })[]> {
  const { rows } = await sql<UsedSums & { teamId: string; teamName: string | null }>`
    SELECT used.team_id AS "teamId", t.name AS "teamName", ${asNumbers}
    FROM (${together(span, 'day', undefined)}) AS used LEFT JOIN teams AS t ON t.id = used.team_id
    GROUP BY used.team_id, t.name ORDER BY sum(vcpu_seconds) DESC, used.team_id`.execute(db)
  return rows
}

/** The two parts do not overlap: the roll-ups end where `rolled_until` says in the same snapshot. */
function together({ from, to }: DaySpan, period: UsagePeriod, teamId: Whose) {
  const ofTeam = teamId === undefined ? sql`true` : sql`team_id = ${teamId}`
  const first = sql`(SELECT greatest(rolled_until, ${from}::date) FROM usage_state)`
  const date = period === 'day' ? sql`date` : sql`date_trunc('month', date)::date AS date`
  return sql`SELECT team_id, date, template, ${sums} FROM usage_rollups
      WHERE period = ${period} AND date >= ${from}::date AND date <= ${to}::date AND ${ofTeam}
    UNION ALL
    SELECT team_id, ${date}, template, ${sums} FROM (${usedByDay({ from: first, to }, teamId)}) AS used`
}

/** A sum that is not what it is made of. */
export interface Difference {
  readonly period: UsagePeriod
  readonly date: string
  readonly teamId: string
  readonly template: string
  /** Exact, as text; `null` where there is none. */
  readonly rolledUp: ExactSums | null
  readonly expected: ExactSums | null
}

/** Exact sums, as text. */
export type ExactSums = Readonly<Record<(typeof sumColumns)[number], string>>

/** Days whose roll-ups are not what the ledger says, and up to `limit` of them. */
export async function findWrongDays(db: Db, span: DaySpan, teamId: Whose, limit: number): Promise<Difference[]> {
  const ofTeam = teamId === undefined ? sql`true` : sql`team_id = ${teamId}`
  const rolled = sql`SELECT team_id, date, template, ${sums} FROM usage_rollups
    WHERE period = 'day' AND date >= ${span.from}::date AND date <= ${span.to}::date AND ${ofTeam}`
  return await differences(db, 'day', rolled, usedByDay(span, teamId), limit)
}

/** Months whose roll-ups are not the sums of those of their days. */
export async function findWrongMonths(db: Db, span: DaySpan, teamId: Whose, limit: number): Promise<Difference[]> {
  const ofTeam = teamId === undefined ? sql`true` : sql`team_id = ${teamId}`
  const range = sql`date >= ${monthOf(span.from)} AND date < ${monthOf(span.to)} + interval '1 month' AND ${ofTeam}`
  const rolled = sql`SELECT team_id, date, template, ${sums} FROM usage_rollups WHERE period = 'month' AND ${range}`
  const days = sql`SELECT team_id, date_trunc('month', date)::date AS date, template, ${addedUp} FROM usage_rollups
    WHERE period = 'day' AND ${range} GROUP BY 1, 2, 3`
  return await differences(db, 'month', rolled, days, limit)
}

async function differences(
  db: Db,
  period: UsagePeriod,
  rolled: RawBuilder<unknown>,
  expected: RawBuilder<unknown>,
  limit: number,
): Promise<Difference[]> {
  const row = (table: string) => sql.join(sumColumns.map((column) => sql.ref(`${table}.${column}`)))
  const json = (table: string) =>
    sql`CASE WHEN ${sql.ref(`${table}.team_id`)} IS NOT NULL THEN json_build_object(${sql.join(
      sumColumns.map((column) => sql`${sql.lit(column)}, ${sql.ref(`${table}.${column}`)}::text`),
    )}) END`
  const { rows } =
    await sql<Difference>`SELECT ${sql.lit(period)} AS period, date::text AS date, team_id AS "teamId", template,
      ${json('r')} AS "rolledUp", ${json('e')} AS expected
    FROM (${rolled}) AS r FULL JOIN (${expected}) AS e USING (team_id, date, template)
    WHERE (${row('r')}) IS DISTINCT FROM (${row('e')})
    ORDER BY date, team_id, template LIMIT ${limit}`.execute(db)
  return rows
}

/** Says that the ledger is kept from a day on, if that is later than before and what is older was rolled up. */
export async function keepLedgerFrom(db: Db, days: number): Promise<boolean> {
  const { numAffectedRows = 0n } = await sql`UPDATE usage_state SET kept_from = cut.day
    FROM (SELECT least((usage_clock() AT TIME ZONE 'UTC')::date - ${days}::int, rolled_until) AS day FROM usage_state) AS cut
    WHERE kept_from < cut.day`.execute(db)
  return numAffectedRows > 0n
}

/** Forgets up to `limit` entries that ended before the ledger is kept. @returns how many */
export async function pruneLedger(db: Db, limit: number): Promise<number> {
  const { numAffectedRows = 0n } = await sql`DELETE FROM usage_ledger WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM usage_ledger WHERE ended_at < (SELECT kept_from::timestamp AT TIME ZONE 'UTC' FROM usage_state)
    ORDER BY ended_at LIMIT ${limit}))`.execute(db)
  return Number(numAffectedRows)
}

/**
 * Forgets roll-ups of months that ended more than `days` ago. Those of a month go together: its sum is that of its days. What was told
 * of them goes too, once it was taken, and first that there is anything to tell: a day without sums would be taken back.
 */
export async function pruneRollUps(db: Db, days: number): Promise<void> {
  const isOld = sql`date < date_trunc('month', (usage_clock() AT TIME ZONE 'UTC')::date - ${days}::int)::date`
  await db.transaction().execute(async (tx) => {
    await sql`DELETE FROM usage_changed_days WHERE ${isOld}`.execute(tx)
    await sql`DELETE FROM lago_events WHERE ${isOld} AND taken_at IS NOT NULL`.execute(tx)
    await sql`DELETE FROM usage_rollups WHERE ${isOld}`.execute(tx)
  })
}

/** Forgets peaks that no range reaches. */
export async function prunePeaks(db: Db, days: number): Promise<void> {
  await sql`DELETE FROM usage_peaks WHERE at < ${ledgerNow} - ${days} * interval '24 hours'`.execute(db)
}
