import type { GetMetricsResponse } from '@wrenn/protocol/host'

/** A point in time, in seconds since 1970 and as text. */
export function toMetric(metrics: GetMetricsResponse) {
  const timestampMs = Number(metrics.timestampMs)
  return {
    timestamp: new Date(timestampMs).toISOString(),
    timestampUnix: Math.floor(timestampMs / 1000),
    cpuUsedPct: metrics.cpuPct,
    cpuCount: metrics.cpuCount,
    memUsed: Number(metrics.memUsedBytes),
    memTotal: Number(metrics.memTotalBytes),
    memCache: Number(metrics.memCacheBytes),
    diskUsed: Number(metrics.diskUsedBytes),
    diskTotal: Number(metrics.diskTotalBytes),
  }
}
