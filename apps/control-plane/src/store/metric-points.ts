/** What a capsule used in the step that ended at a time, or on average over the steps of a longer one that began there. */
export interface MetricPoint {
  /** Unix time. */
  readonly atSec: number
  /** How many looks it is the average of. */
  readonly samples: number
  /** Percent of all vCPUs, to the hundredth. */
  readonly cpuPct: number
  readonly cpuMaxPct: number
  readonly memBytes: number
  readonly diskBytes: number
  /** Sums; `undefined` where nobody counted. */
  readonly netRxBytes: number | undefined
  readonly netTxBytes: number | undefined
}

/** A stretch of time that one row keeps the points of. */
export interface Stretch {
  /** Unix time of its begin. */
  readonly atSec: number
  /** Between points. */
  readonly stepSec: number
}

const POINT_BYTES = 30
const PARTS_PER_PCT = 100
const COUNT_BYTES = 6
/** 2^48 - 1, more than any counter comes to. */
const NOT_COUNTED = 0xffff_ffff_ffff
const LARGEST = NOT_COUNTED - 1

/** 30 bytes a point: its place in the stretch, looks, CPU and its peak in hundredths of a percent, four counts. */
export function packPoints({ atSec, stepSec }: Stretch, points: readonly MetricPoint[]): Buffer {
  const packed = Buffer.alloc(points.length * POINT_BYTES)
  let at = 0
  for (const point of points) {
    at = packed.writeUInt8((point.atSec - atSec) / stepSec, at)
    at = packed.writeUInt8(point.samples, at)
    at = packed.writeUInt16BE(Math.round(point.cpuPct * PARTS_PER_PCT), at)
    at = packed.writeUInt16BE(Math.round(point.cpuMaxPct * PARTS_PER_PCT), at)
    for (const count of [point.memBytes, point.diskBytes, point.netRxBytes, point.netTxBytes]) {
      const kept = count === undefined ? NOT_COUNTED : Math.min(Math.round(count), LARGEST)
      at = packed.writeUIntBE(kept, at, COUNT_BYTES)
    }
  }
  return packed
}

/** What {@link packPoints} was given. */
export function unpackPoints({ atSec, stepSec }: Stretch, packed: Buffer): MetricPoint[] {
  const points: MetricPoint[] = []
  for (let at = 0; at + POINT_BYTES <= packed.length; at += POINT_BYTES) {
    const count = (place: number): number => packed.readUIntBE(at + 6 + place * COUNT_BYTES, COUNT_BYTES)
    const counted = (place: number): number | undefined => (count(place) === NOT_COUNTED ? undefined : count(place))
    points.push({
      atSec: atSec + packed.readUInt8(at) * stepSec,
      samples: packed.readUInt8(at + 1),
      cpuPct: packed.readUInt16BE(at + 2) / PARTS_PER_PCT,
      cpuMaxPct: packed.readUInt16BE(at + 4) / PARTS_PER_PCT,
      memBytes: count(0),
      diskBytes: count(1),
      netRxBytes: counted(2),
      netTxBytes: counted(3),
    })
  }
  return points
}
