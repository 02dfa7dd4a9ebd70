import { errorText, type Logger } from '@wrenn/base'
import type { CollectMetricsResponse_Point, CollectMetricsResponse_Series } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import { type MetricPoint, packPoints, unpackPoints } from '../../store/metric-points.js'
import {
  findNotRolledUp,
  insertMetrics,
  insertRolledUp,
  listStretches,
  type MetricRow,
  type MetricsScope,
  pruneMetrics,
} from '../../store/metrics.js'
import { Rounds } from '../rounds.js'
import { rollUp } from './roll-up.js'
import { beginOf, tierAt, tiers } from './tiers.js'

/** A window of the host's: what a crash of it can lose is what came since the last one that was collected. */
const EVERY_MS = 15_000
const COLLECT_TIMEOUT_MS = 10_000
/** Capsules whose rows are rolled up together. */
const BATCH = 200

interface CollectorDeps {
  readonly db: Db
  readonly host: Host
  readonly logger: Logger
  /** @default 15 000 */
  readonly everyMs?: number
}

/**
 * Writes what a host has sampled of its capsules into the database, rolls it up and forgets what is old. Any number of control planes may: a row
 * is of a stretch of time that has passed by that host's clock, so all write the same ones, and who comes second changes nothing.
 */
export class MetricsCollector extends Rounds {
  readonly #deps: CollectorDeps
  /** Of the host's clock: everything before it was collected. */
  #untilSec = 0
  /** By tier: everything before it was rolled up into it. */
  #rolledUpSec: number[] = tiers.map(() => 0)

  constructor(deps: CollectorDeps) {
    const { everyMs = EVERY_MS, logger } = deps
    super(
      () => this.collect(),
      everyMs,
      (error) => logger.debug({ error: errorText(error) }, 'metrics.not_collected'),
    )
    this.#deps = deps
  }

  /** One round. A row is rolled up before it is forgotten, however long nobody has collected. */
  async collect(): Promise<void> {
    const { db, host } = this.#deps
    const request = { fromSec: BigInt(this.#untilSec) }
    const answer = await host.call((client) => client.collectMetrics(request, { timeoutMs: COLLECT_TIMEOUT_MS }))
    const untilSec = Number(answer.untilSec)
    if (untilSec === this.#untilSec) return
    // The host has begun anew, or its clock was set back: the next round asks for all that it has.
    const isBack = untilSec < this.#untilSec
    if (isBack) this.#rolledUpSec = tiers.map(() => 0)
    await insertMetrics(db, this.#scope(0), answer.series.flatMap(toRows))
    for (let tier = 1; tier < tiers.length && !this.signal.aborted; tier++) await this.#rollUp(tier, untilSec)
    for (const [tier, { spanSec, keepSec }] of tiers.entries()) {
      await pruneMetrics(db, this.#scope(tier), beginOf(untilSec, spanSec) - spanSec - keepSec)
    }
    this.#untilSec = isBack ? 0 : untilSec
  }

  /** Fills a tier from the one below, stretch by stretch, as far as they have passed. */
  async #rollUp(tier: number, untilSec: number): Promise<void> {
    const { db } = this.#deps
    const { spanSec } = tierAt(tier)
    const toSec = beginOf(untilSec, spanSec)
    const fromSec = this.#rolledUpSec[tier] ?? 0
    if (toSec <= fromSec) return
    const below = this.#scope(tier - 1)
    for (const atSec of await listStretches(db, below, spanSec, { fromSec, toSec })) {
      for (;;) {
        const rows = await findNotRolledUp(db, below, { atSec, spanSec }, BATCH)
        if (rows.length === 0) break
        await insertRolledUp(db, tier, together(rows, tier, atSec))
      }
    }
    this.#rolledUpSec[tier] = toSec
  }

  #scope(tier: number): MetricsScope {
    return { tier, hostId: this.#deps.host.joinedId }
  }
}

/** The points of a row. */
export function pointsOf({ tier, atSec, points }: Omit<MetricRow, 'seq'>): MetricPoint[] {
  return unpackPoints({ atSec, stepSec: tierAt(tier).stepSec }, points)
}

function together(rows: readonly MetricRow[], tier: number, atSec: number): Omit<MetricRow, 'tier'>[] {
  const bySeq = new Map<number, MetricPoint[]>()
  for (const row of rows) bySeq.set(row.seq, [...(bySeq.get(row.seq) ?? []), ...pointsOf(row)])
  const { stepSec } = tierAt(tier)
  return [...bySeq].map(([seq, points]) => ({
    ...{ seq, atSec },
    points: packPoints({ atSec, stepSec }, rollUp(points, stepSec)),
  }))
}

function toRows({ capsuleId, points }: CollectMetricsResponse_Series) {
  const { stepSec, spanSec } = tierAt(0)
  const spans = new Map<number, MetricPoint[]>()
  for (const point of points.map(toPoint)) {
    const begin = beginOf(point.atSec, spanSec)
    spans.set(begin, [...(spans.get(begin) ?? []), point])
  }
  return [...spans].map(([atSec, some]) => ({ capsuleId, atSec, points: packPoints({ atSec, stepSec }, some) }))
}

/** A look of the host's. */
export function toPoint({ atSec, cpuPct, netRxBytes, netTxBytes, ...held }: CollectMetricsResponse_Point): MetricPoint {
  return {
    atSec: Number(atSec),
    samples: 1,
    cpuPct,
    cpuMaxPct: cpuPct,
    memBytes: Number(held.memBytes),
    diskBytes: Number(held.diskBytes),
    netRxBytes: netRxBytes === undefined ? undefined : Number(netRxBytes),
    netTxBytes: netTxBytes === undefined ? undefined : Number(netTxBytes),
  }
}
