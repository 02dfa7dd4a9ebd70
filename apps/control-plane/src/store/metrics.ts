import { type RawBuilder, type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import { isOnHost } from './hosts.js'

/** A row: points of a capsule, packed. */
export interface MetricRow {
  readonly seq: number
  readonly tier: number
  readonly atSec: number
  readonly points: Buffer
}

/** Rows of a tier, of capsules on one host: for others its clock says nothing, nor whether all has come. */
export interface MetricsScope {
  readonly tier: number
  /** `undefined`: of all, for there is no other host. */
  readonly hostId: string | undefined
}

const ROWS_PER_STATEMENT = 1_000

/** Writes rows of capsules by their ids. What is there stays as it is, and capsules that nobody knows, or of other hosts, are passed by. */
export async function insertMetrics(
  db: Db,
  { tier, hostId }: MetricsScope,
  rows: readonly { readonly capsuleId: string; readonly atSec: number; readonly points: Buffer }[],
): Promise<void> {
  for (let from = 0; from < rows.length; from += ROWS_PER_STATEMENT) {
    const some = rows.slice(from, from + ROWS_PER_STATEMENT)
    const ids = some.map(({ capsuleId }) => capsuleId)
    await sql`INSERT INTO capsule_metrics (capsule_seq, tier, at, points)
      SELECT c.seq, ${tier}, said.at, said.points
      FROM unnest(${ids}::text[], ${timesOf(some)}::bigint[], ${pointsOf(some)}::bytea[]) AS said (id, at, points)
        JOIN capsules AS c ON c.id = said.id AND ${isOnHost(sql`c.host_id`, hostId)}
      ON CONFLICT DO NOTHING`.execute(db)
  }
}

/** Writes rows of one tier that were made of another's. */
export async function insertRolledUp(db: Db, tier: number, rows: readonly Omit<MetricRow, 'tier'>[]): Promise<void> {
  const seqs = rows.map(({ seq }) => seq)
  await sql`INSERT INTO capsule_metrics (capsule_seq, tier, at, points)
    SELECT c.seq, ${tier}, made.at, made.points
    FROM unnest(${seqs}::bigint[], ${timesOf(rows)}::bigint[], ${pointsOf(rows)}::bytea[]) AS made (seq, at, points)
      JOIN capsules AS c ON c.seq = made.seq
    ON CONFLICT DO NOTHING`.execute(db)
}

/** All that is kept of a capsule from a time on, of `tier` and finer, oldest first. */
export async function findMetrics(db: Db, seq: number, tier: number, fromSec: number): Promise<MetricRow[]> {
  return await db
    .selectFrom('capsule_metrics')
    .select(['capsule_seq as seq', 'tier', 'at as atSec', 'points'])
    .where('capsule_seq', '=', seq)
    .where('tier', '<=', tier)
    .where('at', '>=', fromSec)
    .orderBy('at')
    .execute()
}

/** Begins of stretches of `spanSec` before a time of which a tier has rows, oldest first. */
export async function listStretches(
  db: Db,
  { tier, hostId }: MetricsScope,
  spanSec: number,
  { fromSec, toSec }: { readonly fromSec: number; readonly toSec: number },
): Promise<number[]> {
  const { rows } = await sql<{
    at: number
  }>`SELECT DISTINCT m.at - m.at % ${spanSec}::bigint AS at FROM capsule_metrics AS m
    WHERE m.tier = ${tier} AND m.at >= ${fromSec} AND m.at < ${toSec} AND ${isOf(hostId)} ORDER BY 1`.execute(db)
  return rows.map(({ at }) => at)
}

/** Rows of a tier in a stretch, of up to `limit` capsules of which the next tier has none for it yet. */
export async function findNotRolledUp(
  db: Db,
  { tier, hostId }: MetricsScope,
  stretch: { readonly atSec: number; readonly spanSec: number },
  limit: number,
): Promise<MetricRow[]> {
  const { atSec, spanSec } = stretch
  const { rows } = await sql<MetricRow>`WITH open AS (
      SELECT DISTINCT m.capsule_seq FROM capsule_metrics AS m
      WHERE m.tier = ${tier} AND m.at >= ${atSec} AND m.at < ${atSec + spanSec} AND ${isOf(hostId)}
        AND NOT EXISTS (SELECT FROM capsule_metrics AS rolled
          WHERE rolled.capsule_seq = m.capsule_seq AND rolled.tier = ${tier + 1} AND rolled.at = ${atSec})
      LIMIT ${limit})
    SELECT m.capsule_seq AS seq, m.tier AS tier, m.at AS "atSec", m.points AS points
    FROM capsule_metrics AS m JOIN open USING (capsule_seq)
    WHERE m.tier = ${tier} AND m.at >= ${atSec} AND m.at < ${atSec + spanSec}
    ORDER BY m.capsule_seq, m.at`.execute(db)
  return rows
}

/** Forgets what is older in a tier. */
export async function pruneMetrics(db: Db, { tier, hostId }: MetricsScope, beforeSec: number): Promise<void> {
  await sql`DELETE FROM capsule_metrics AS m WHERE m.tier = ${tier} AND m.at < ${beforeSec} AND ${isOf(hostId)}`.execute(
    db,
  )
}

/** The same of capsules whose host was removed, by the clock of the database: no other tells of them any more. */
export async function pruneMetricsOfGone(db: Db, tier: number, olderThanSec: number): Promise<void> {
  await sql`DELETE FROM capsule_metrics AS m USING capsules AS c, hosts AS h
    WHERE m.tier = ${tier} AND m.at < extract(epoch FROM now()) - ${olderThanSec}
      AND c.seq = m.capsule_seq AND h.id = c.host_id AND h.removed_at IS NOT NULL`.execute(db)
}

/** Of a row `m`. */
function isOf(hostId: string | undefined): RawBuilder<SqlBool> {
  if (hostId === undefined) return sql<SqlBool>`true`
  return sql<SqlBool>`EXISTS (SELECT FROM capsules AS c WHERE c.seq = m.capsule_seq AND ${isOnHost(sql`c.host_id`, hostId)})`
}

function timesOf(rows: readonly { readonly atSec: number }[]): number[] {
  return rows.map(({ atSec }) => atSec)
}

function pointsOf(rows: readonly { readonly points: Buffer }[]): Buffer[] {
  return rows.map(({ points }) => points)
}
