import { AppError } from '@wrenn/base'
import type { HostCalls } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import type { MetricPoint } from '../../store/metric-points.js'
import { findMetrics, type MetricRow } from '../../store/metrics.js'
import type { CapsuleRow } from '../../store/schema.js'
import { pointsOf, toPoint } from './collector.js'
import { rollUp } from './roll-up.js'
import { beginOf, tierAt, tierFor, tiers } from './tiers.js'

/** What the host is asked for beside the database; without an answer the history ends a little earlier. */
const FRESH_TIMEOUT_MS = 2_000
/** More than a control plane collects late. */
const FRESH_SEC = 120

/** Of which time; both in Unix time. */
export interface MetricsSpan {
  readonly fromSec: number
  /** Not included. @default now */
  readonly toSec?: number
}

/** What a capsule used, in steps. Where it slept there are no points. */
export interface MetricsHistory {
  readonly stepSec: number
  /** Oldest first. */
  readonly points: readonly MetricPoint[]
}

/** What capsules have used, from the database and, for the last moments, from the host; also of one that has just been paused. */
export class CapsuleHistory {
  readonly #db: Db
  readonly #host: HostCalls

  constructor({ db, host }: { readonly db: Db; readonly host: HostCalls }) {
    this.#db = db
    this.#host = host
  }

  /** In the finest steps that are kept since `fromSec`. */
  async read(
    row: Pick<CapsuleRow, 'id' | 'seq'>,
    { fromSec, toSec = Number.POSITIVE_INFINITY }: MetricsSpan,
  ): Promise<MetricsHistory> {
    const nowSec = Date.now() / 1000
    const tier = tierFor(Math.floor(nowSec - fromSec))
    const { stepSec, spanSec } = tierAt(tier)
    const [rows, fresh] = await Promise.all([
      findMetrics(this.#db, row.seq, tier, Math.max(0, Math.floor(fromSec) - spanSec)),
      toSec > nowSec - FRESH_SEC ? this.#fresh(row.id, nowSec) : [],
    ])
    const points = merged(rows, fresh, tier)
    return { stepSec, points: points.filter(({ atSec }) => atSec >= fromSec && atSec < toSec) }
  }

  async #fresh(capsuleId: string, nowSec: number): Promise<MetricPoint[]> {
    const request = { fromSec: BigInt(Math.floor(nowSec) - FRESH_SEC), capsuleIds: [capsuleId] }
    try {
      const answer = await this.#host.call((client) => client.collectMetrics(request, { timeoutMs: FRESH_TIMEOUT_MS }))
      return answer.series.flatMap(({ points }) => points.map(toPoint))
    } catch (error) {
      if (AppError.is(error, 'host_unavailable', 'timeout')) return []
      throw error
    }
  }
}

/** Points of a tier. What has not been rolled up into it yet is so here; a time is never taken from two tiers. */
function merged(rows: readonly MetricRow[], fresh: readonly MetricPoint[], tier: number): MetricPoint[] {
  const has = tiers.map((_, number) => new Set(rows.filter((row) => row.tier === number).map(({ atSec }) => atSec)))
  const isCovered = (atSec: number, from: number): boolean =>
    tiers.some(
      ({ spanSec }, number) => number >= from && number <= tier && has[number]?.has(beginOf(atSec, spanSec)) === true,
    )
  const stored = rows.filter(({ tier: number, atSec }) => !isCovered(atSec, number + 1))
  const points = [...stored.flatMap(pointsOf), ...fresh.filter(({ atSec }) => !isCovered(atSec, 0))]
  return rollUp(points, tierAt(tier).stepSec)
}
