import type { GetMetricsResponse } from '@wrenn/protocol/host'
import type { MetricPoint } from '../store/metric-points.js'
import type { CapsuleRow } from '../store/schema.js'

const MIB = 2 ** 20

/** A point in time, in seconds since 1970 and as text. */
export interface SandboxMetric {
  readonly timestamp: string
  readonly timestampUnix: number
  readonly cpuUsedPct: number
  readonly cpuCount: number
  readonly memUsed: number
  readonly memTotal: number
  readonly memCache: number
  readonly diskUsed: number
  readonly diskTotal: number
}

/** Of now, as the guest says. */
export function toMetric(metrics: GetMetricsResponse): SandboxMetric {
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

/** Of the past, measured outside the guest, where nobody knows its page cache. What the engine needs beside the guest's memory is left out. */
export function toPastMetric(
  { vcpus, memory_mib, disk_size_mib }: Pick<CapsuleRow, 'vcpus' | 'memory_mib' | 'disk_size_mib'>,
  point: MetricPoint,
): SandboxMetric {
  const memTotal = memory_mib * MIB
  return {
    timestamp: new Date(point.atSec * 1000).toISOString(),
    timestampUnix: point.atSec,
    cpuUsedPct: point.cpuPct,
    cpuCount: vcpus,
    memUsed: Math.min(point.memBytes, memTotal),
    memTotal,
    memCache: 0,
    diskUsed: point.diskBytes,
    diskTotal: disk_size_mib * MIB,
  }
}
