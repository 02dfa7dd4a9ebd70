import { type MetricsHistory, type MetricsPoint, type MetricsRange, metricsRanges } from '@wrenn/sdk'

/** How far back one may look. */
interface Range {
  readonly range: MetricsRange
  /** What people call it. */
  readonly label: string
  readonly seconds: number
}

/** All of them, the shortest first. */
export const ranges = (Object.keys(metricsRanges) as MetricsRange[]).map(describe) // a table has no other keys
const DEFAULT_RANGE = describe('1h')
/** Points further apart than so many steps have a gap between them. */
const GAP_STEPS = 1.5

/** What is drawn over the times; `null` where there is nothing. */
export type Values = readonly (number | null)[]

/** Points as charts take them. */
export interface Series {
  /** Unix time; between points with a gap there is one more. */
  readonly times: readonly number[]
  /** Percent of all vCPUs. */
  readonly cpu: Values
  /** The same as `cpu` where steps are the shortest. */
  readonly cpuMax: Values
  readonly memory: Values
  readonly disk: Values
  /** Bytes a second, as is `sent`. */
  readonly received: Values
  readonly sent: Values
}

/** What somebody wants to know without looking at a chart. */
export interface Summary {
  readonly latest: number
  readonly average: number
  readonly peak: number
}

/** The one that an address asks for, or the default. */
export function rangeOf(text: string | null): Range {
  return ranges.find(({ range }) => range === text) ?? DEFAULT_RANGE
}

function describe(range: MetricsRange): Range {
  return { range, label: range.replace(/m$/, ' min').replace(/h$/, ' h'), seconds: metricsRanges[range] }
}

/** The points in order, with nothing drawn through the time when there were none. */
export function seriesOf({ points, stepMs }: Pick<MetricsHistory, 'points' | 'stepMs'>): Series {
  const spread = points.flatMap((point, index): readonly (MetricsPoint | Date)[] => {
    const before = points[index - 1]
    if (before === undefined || distance(before, point) <= stepMs * GAP_STEPS) return [point]
    return [new Date(before.timestamp.getTime() + stepMs), point]
  })
  const rate = (count: number | undefined): number | undefined =>
    count === undefined ? count : count / (stepMs / 1000)
  const values = (of: (point: MetricsPoint) => number | undefined): Values =>
    spread.map((point) => (point instanceof Date ? null : (of(point) ?? null)))
  return {
    times: spread.map((point) => (point instanceof Date ? point : point.timestamp).getTime() / 1000),
    cpu: values(({ cpuPct }) => cpuPct),
    cpuMax: values(({ cpuMaxPct }) => cpuMaxPct),
    memory: values(({ memoryBytes }) => memoryBytes),
    disk: values(({ diskBytes }) => diskBytes),
    received: values(({ netRxBytes }) => rate(netRxBytes)),
    sent: values(({ netTxBytes }) => rate(netTxBytes)),
  }
}

/** `undefined` where nothing was measured. */
export function summaryOf(values: Values): Summary | undefined {
  const known = values.filter((value) => value !== null)
  const latest = known.at(-1)
  if (latest === undefined) return undefined
  const average = known.reduce((sum, value) => sum + value, 0) / known.length
  return { latest, average, peak: Math.max(...known) }
}

/** `0.4 %`, `37 %`. */
export function percent(value: number): string {
  return `${value.toFixed(value < 10 ? 1 : 0)} %`
}

function distance(before: MetricsPoint, after: MetricsPoint): number {
  return after.timestamp.getTime() - before.timestamp.getTime()
}
