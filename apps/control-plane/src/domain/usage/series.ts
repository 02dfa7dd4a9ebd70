import type { Bucket, Levels } from '../../store/usage-ledger.js'

const nothing: Levels = { running: 0, vcpus: 0, memoryMib: 0 }

/** Steps from a time on, which begin at multiples of their length. */
export interface Steps {
  readonly from: Date
  readonly count: number
  readonly stepSec: number
}

/** The highest levels in each step, of the buckets of one team in which something changed. */
export function fill({ from, count, stepSec }: Steps, buckets: readonly Bucket[]): Levels[] {
  const known = new Map(buckets.map((bucket) => [bucket.at.getTime(), bucket]))
  let carried = nothing
  return Array.from({ length: count }, (_, index) => {
    const bucket = known.get(from.getTime() + index * stepSec * 1000)
    if (bucket === undefined) return carried
    const highest = bucket.isFromBegin ? bucket.highest : highestOf([carried, bucket.highest])
    carried = bucket.last
    return highest
  })
}

/** Each by itself. */
export function highestOf(levels: readonly Levels[]): Levels {
  return levels.reduce(
    (most, each) => ({
      running: Math.max(most.running, each.running),
      vcpus: Math.max(most.vcpus, each.vcpus),
      memoryMib: Math.max(most.memoryMib, each.memoryMib),
    }),
    nothing,
  )
}

/** Begin of the step that a time is in. */
export function stepOf(at: Date, stepSec: number): Date {
  return new Date(Math.floor(at.getTime() / 1000 / stepSec) * stepSec * 1000)
}
