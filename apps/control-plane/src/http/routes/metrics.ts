import { AppError } from '@wrenn/base'
import {
  type CapsuleMetrics,
  isUsable,
  type MetricsRange,
  metricsRangeSchema,
  metricsRanges,
  metricsSchema,
} from '@wrenn/protocol'
import type { GetMetricsResponse } from '@wrenn/protocol/host'
import { z } from 'zod'
import type { MetricsHistory } from '../../domain/metrics/index.js'
import { principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { capsuleParams, errors } from '../schemas.js'

/** Existing clients give up after 5 seconds. */
const ANSWER_WITHIN_MS = 4_500
const DEFAULT_RANGE: MetricsRange = '10m'

/** What is said of a guest that hangs, is moving or has ended, and of a host that is away. */
const SILENT = [
  ...['guest_unreachable', 'guest_died', 'guest_error', 'invalid_state', 'host_unavailable', 'timeout'],
  ...['capsule_not_found', 'capsule_ended'],
] as const

/** What capsules use and have used. */
export function metricsRoutes(app: App, { capsules, host, history }: Services): void {
  const ask = async (capsuleId: string): Promise<CapsuleMetrics['current']> =>
    toCurrent(await host.call((client) => client.getMetrics({ capsuleId }, { timeoutMs: ANSWER_WITHIN_MS })))

  app.get(
    '/v1/capsules/:id/metrics',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['capsules'],
        summary: 'What a capsule uses and has used.',
        description:
          'Without `range` only a running capsule is answered for, with what it uses now and the last ten minutes. With it the history of any capsule is.',
        params: capsuleParams,
        querystring: z.object({
          range: metricsRangeSchema.optional(),
          current: z.stringbool().default(true).describe('With `range`, `false` leaves the guest in peace.'),
        }),
        response: { 200: metricsSchema, ...errors },
      },
    },
    async (request) => {
      const { teamId } = principalOf(request)
      const { id } = request.params
      const { range, current: isAsked } = request.query
      const row = range === undefined ? await capsules.running(teamId, id) : await capsules.get(teamId, id)
      const fromSec = Math.floor(Date.now() / 1000) - metricsRanges[range ?? DEFAULT_RANGE]
      const [current, past] = await Promise.all([
        range === undefined ? ask(id) : isAsked && isUsable(row.state) ? ask(id).catch(unlessSilent) : undefined,
        history.read(row, { fromSec }),
      ])
      return toMetrics(id, range ?? DEFAULT_RANGE, past, current)
    },
  )
}

/** The history of a guest that hangs, or of one that ended meanwhile, is worth more than the refusal. */
function unlessSilent(error: unknown): undefined {
  if (!AppError.is(error, ...SILENT)) throw error
}

function toCurrent(metrics: GetMetricsResponse): NonNullable<CapsuleMetrics['current']> {
  const timestampMs = Number(metrics.timestampMs)
  if (timestampMs === 0) throw new AppError('guest_error', 'The guest gave no metrics.')
  return {
    timestamp: new Date(timestampMs).toISOString(),
    cpu_pct: metrics.cpuPct,
    cpu_count: metrics.cpuCount,
    mem_used_bytes: Number(metrics.memUsedBytes),
    mem_total_bytes: Number(metrics.memTotalBytes),
    mem_cache_bytes: Number(metrics.memCacheBytes),
    disk_used_bytes: Number(metrics.diskUsedBytes),
    disk_total_bytes: Number(metrics.diskTotalBytes),
    host_rss_bytes: Number(metrics.hostRssBytes),
    host_cpu_ns: Number(metrics.hostCpuNs),
    host_disk_bytes: Number(metrics.hostDiskBytes),
  }
}

function toMetrics(
  id: string,
  range: MetricsRange,
  { stepSec, points }: MetricsHistory,
  current: CapsuleMetrics['current'],
): CapsuleMetrics {
  const told = points.map((point) => ({
    timestamp_unix: point.atSec,
    cpu_pct: point.cpuPct,
    ...(point.samples > 1 ? { cpu_max_pct: point.cpuMaxPct } : {}),
    mem_bytes: point.memBytes,
    disk_bytes: point.diskBytes,
    ...(point.netRxBytes === undefined ? {} : { net_rx_bytes: point.netRxBytes }),
    ...(point.netTxBytes === undefined ? {} : { net_tx_bytes: point.netTxBytes }),
  }))
  const known = told.length > 0 || current === undefined ? told : [firstPoint(current)]
  return {
    ...{ sandbox_id: id, capsule_id: id, range, step_sec: stepSec, points: known },
    ...(current === undefined ? {} : { current }),
  }
}

/** Of a capsule that has just begun to run: there is always a point of one that runs. */
function firstPoint(current: NonNullable<CapsuleMetrics['current']>): CapsuleMetrics['points'][number] {
  return {
    timestamp_unix: Math.floor(Date.parse(current.timestamp) / 1000),
    cpu_pct: current.cpu_pct,
    mem_bytes: current.host_rss_bytes,
    disk_bytes: current.host_disk_bytes,
  }
}
