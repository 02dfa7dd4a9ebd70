import type { Cidr } from '@wrenn/base'

/** IPv4 addresses as numbers, both ends included. */
export interface Interval {
  readonly first: number
  readonly last: number
}

/** Sorted, and neither overlapping nor adjacent. */
export type Intervals = readonly Interval[]

export const everything: Intervals = [{ first: 0, last: 2 ** 32 - 1 }]

export function intervalsOf(cidrs: readonly Cidr[]): Intervals {
  return union(cidrs.map(({ base, bits }) => ({ first: base, last: base + 2 ** (32 - bits) - 1 })))
}

/** Of any intervals, in any order. */
export function union(...all: readonly (readonly Interval[])[]): Intervals {
  const merged: Interval[] = []
  for (const { first, last } of all.flat().sort((a, b) => a.first - b.first)) {
    const before = merged.at(-1)
    if (before === undefined || first > before.last + 1) merged.push({ first, last })
    else merged[merged.length - 1] = { first: before.first, last: Math.max(before.last, last) }
  }
  return merged
}

export function without(intervals: Intervals, holes: Intervals): Intervals {
  return intervals.flatMap(({ first, last }) => {
    const left: Interval[] = []
    let next = first
    for (const hole of holes) {
      if (hole.last < next || hole.first > last) continue
      if (hole.first > next) left.push({ first: next, last: hole.first - 1 })
      next = hole.last + 1
    }
    if (next <= last) left.push({ first: next, last })
    return left
  })
}

/** The one that an address lies in. */
export function find(intervals: Intervals, address: number): Interval | undefined {
  let [low, high] = [0, intervals.length - 1]
  while (low <= high) {
    const middle = (low + high) >>> 1
    const interval = intervals[middle]
    if (interval === undefined) return undefined
    if (address < interval.first) high = middle - 1
    else if (address > interval.last) low = middle + 1
    else return interval
  }
  return undefined
}

/** The largest network around an address that lies in an interval, which has the address. */
export function networkAround(address: number, { first, last }: Interval): Cidr {
  for (let bits = 0; bits < 32; bits += 1) {
    const size = 2 ** (32 - bits)
    const base = address - (address % size)
    if (base >= first && base + size - 1 <= last) return { base, bits }
  }
  return { base: address, bits: 32 }
}
