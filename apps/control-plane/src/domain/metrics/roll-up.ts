import type { MetricPoint } from '../../store/metric-points.js'
import { beginOf } from './tiers.js'

/**
 * One point for each step in which there is any, in the order of time: averages by how many looks each is made of, so that it does not
 * matter over which tiers it came; the peak of the peaks; sums of what was counted.
 */
export function rollUp(points: readonly MetricPoint[], stepSec: number): MetricPoint[] {
  const steps = new Map<number, MetricPoint[]>()
  for (const point of points) {
    const begin = beginOf(point.atSec, stepSec)
    const step = steps.get(begin)
    if (step === undefined) steps.set(begin, [point])
    else step.push(point)
  }
  return [...steps].sort(([a], [b]) => a - b).map(([atSec, step]) => together(atSec, step))
}

function together(atSec: number, points: readonly MetricPoint[]): MetricPoint {
  const samples = points.reduce((sum, point) => sum + point.samples, 0)
  const average = (of: (point: MetricPoint) => number): number =>
    points.reduce((sum, point) => sum + of(point) * (point.samples / samples), 0)
  return {
    atSec,
    samples,
    cpuPct: average(({ cpuPct }) => cpuPct),
    cpuMaxPct: Math.max(...points.map(({ cpuMaxPct }) => cpuMaxPct)),
    memBytes: Math.round(average(({ memBytes }) => memBytes)),
    diskBytes: Math.round(average(({ diskBytes }) => diskBytes)),
    netRxBytes: sum(points.map(({ netRxBytes }) => netRxBytes)),
    netTxBytes: sum(points.map(({ netTxBytes }) => netTxBytes)),
  }
}

/** `undefined` when there is nothing that was counted. */
function sum(counts: readonly (number | undefined)[]): number | undefined {
  const counted = counts.filter((count) => count !== undefined)
  return counted.length === 0 ? undefined : counted.reduce((total, count) => total + count, 0)
}
