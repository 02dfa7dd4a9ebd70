import { setImmediate as yieldToOthers } from 'node:timers/promises'

/** Where files lie on the pool's device, as they were found: starts and ends of their pieces, in any order. */
export interface Extents {
  readonly starts: Float64Array
  readonly ends: Float64Array
  /** Bytes that have no place of their own to compare: inline, or on a file system without an extent map. */
  readonly unplacedBytes: number
}

const SHARED = -1
const BASE = 0
const SUBTRACTED = 1

/** Disjoint stretches of a device in order, each with who holds it. */
interface Stretches {
  readonly starts: Float64Array
  readonly ends: Float64Array
  /** A number for the only holder, or `SHARED`. */
  readonly holders: Int32Array
}

/** Bytes of a device that some files take, each once. */
export class Blocks {
  readonly #stretches: Stretches
  readonly #unplacedBytes: number

  private constructor(stretches: Stretches, unplacedBytes: number) {
    this.#stretches = stretches
    this.#unplacedBytes = unplacedBytes
  }

  /** What files cover, from their extents; a block that several share counts once. */
  static of({ starts, ends, unplacedBytes }: Extents): Blocks {
    // Where pieces overlap, which end belongs to which start makes no difference to what they cover.
    const [from, to] = [starts.slice().sort(), ends.slice().sort()]
    const builder = new Builder(from.length)
    for (let index = 0; index < from.length; index++) builder.cover(from[index] ?? 0, to[index] ?? 0)
    return new Blocks(builder.done(), unplacedBytes)
  }

  static none(): Blocks {
    return new Blocks(new Builder(0).done(), 0)
  }

  /** What any of them covers. Yields to others now and then: there may be millions of pieces. */
  static async union(sets: readonly Blocks[]): Promise<Blocks> {
    const all = await overlay(sets.map((set) => set.#stretches))
    const builder = new Builder(all.starts.length)
    for (let index = 0; index < all.starts.length; index++) {
      builder.cover(all.starts[index] ?? 0, all.ends[index] ?? 0)
    }
    return new Blocks(
      builder.done(),
      sets.reduce((sum, set) => sum + set.#unplacedBytes, 0),
    )
  }

  /** All together, those without a place included. */
  get bytes(): number {
    return this.#unplacedBytes + lengthOf(this.#stretches)
  }

  /** What is not in `other`. */
  minus(other: Blocks): Blocks {
    const both = merge(heldBy(this.#stretches, BASE), heldBy(other.#stretches, SUBTRACTED))
    const builder = new Builder(both.starts.length)
    for (let index = 0; index < both.starts.length; index++) {
      if (both.holders[index] === BASE) builder.push(both.starts[index] ?? 0, both.ends[index] ?? 0, BASE)
    }
    return new Blocks(builder.done(), this.#unplacedBytes)
  }

  /** What several sets take together, a byte that some share counted once, and of that what each alone takes. */
  static async together(sets: readonly Blocks[]): Promise<{ readonly bytes: number; readonly own: readonly number[] }> {
    const own = sets.map((set) => set.#unplacedBytes)
    const unplaced = own.reduce((sum, bytes) => sum + bytes, 0)
    const all = await overlay(sets.map((set, index) => heldBy(set.#stretches, index)))
    for (let index = 0; index < all.starts.length; index++) {
      const holder = all.holders[index] ?? SHARED
      if (holder !== SHARED) own[holder] = (own[holder] ?? 0) + (all.ends[index] ?? 0) - (all.starts[index] ?? 0)
    }
    return { bytes: unplaced + lengthOf(all), own }
  }
}

/** All on one line. Lets others run in between: maps of many fragmented memories are long. */
async function overlay(lines: readonly Stretches[]): Promise<Stretches> {
  let level = lines
  while (level.length > 1) {
    const next: Stretches[] = []
    for (let index = 0; index < level.length; index += 2) {
      const [left, right] = [level[index], level[index + 1]]
      if (left !== undefined) next.push(right === undefined ? left : merge(left, right))
      await yieldToOthers()
    }
    level = next
  }
  return level[0] ?? new Builder(0).done()
}

function lengthOf({ starts, ends }: Stretches): number {
  let bytes = 0
  for (let index = 0; index < starts.length; index++) bytes += (ends[index] ?? 0) - (starts[index] ?? 0)
  return bytes
}

function heldBy({ starts, ends }: Stretches, holder: number): Stretches {
  return { starts, ends, holders: new Int32Array(starts.length).fill(holder) }
}

/** Both on one line: what two hold is shared. */
function merge(left: Stretches, right: Stretches): Stretches {
  const builder = new Builder(2 * (left.starts.length + right.starts.length))
  const [a, b] = [new Cursor(left), new Cursor(right)]
  while (!a.isOver && !b.isOver) {
    const [first, second] = a.start <= b.start ? [a, b] : [b, a]
    if (first.start < second.start) {
      const end = Math.min(first.end, second.start)
      builder.push(first.start, end, first.holder)
      first.advance(end)
    } else {
      const end = Math.min(a.end, b.end)
      builder.push(a.start, end, SHARED)
      a.advance(end)
      b.advance(end)
    }
  }
  for (const rest of [a, b]) {
    while (!rest.isOver) {
      builder.push(rest.start, rest.end, rest.holder)
      rest.advance(rest.end)
    }
  }
  return builder.done()
}

/** Walks along stretches; the current one may be cut off from the left. */
class Cursor {
  readonly #of: Stretches
  #index = -1
  start = 0
  end = 0
  holder = SHARED
  isOver = false

  constructor(of: Stretches) {
    this.#of = of
    this.#next()
  }

  advance(to: number): void {
    if (to < this.end) this.start = to
    else this.#next()
  }

  #next(): void {
    const { starts, ends, holders } = this.#of
    this.#index += 1
    this.isOver = this.#index >= starts.length
    this.start = starts[this.#index] ?? 0
    this.end = ends[this.#index] ?? 0
    this.holder = holders[this.#index] ?? SHARED
  }
}

/** Takes stretches in order and joins neighbours of one holder. */
class Builder {
  readonly #starts: Float64Array
  readonly #ends: Float64Array
  readonly #holders: Int32Array
  #count = 0

  constructor(capacity: number) {
    this.#starts = new Float64Array(capacity)
    this.#ends = new Float64Array(capacity)
    this.#holders = new Int32Array(capacity)
  }

  push(start: number, end: number, holder: number): void {
    const last = this.#count - 1
    if (last >= 0 && this.#ends[last] === start && this.#holders[last] === holder) {
      this.#ends[last] = end
      return
    }
    this.#starts[this.#count] = start
    this.#ends[this.#count] = end
    this.#holders[this.#count] = holder
    this.#count += 1
  }

  /** Joins what overlaps, too. */
  cover(start: number, end: number): void {
    const last = this.#count - 1
    const covered = last >= 0 ? (this.#ends[last] ?? 0) : -1
    if (covered >= start) this.#ends[last] = Math.max(covered, end)
    else this.push(start, end, BASE)
  }

  done(): Stretches {
    const count = this.#count
    return {
      starts: this.#starts.slice(0, count),
      ends: this.#ends.slice(0, count),
      holders: this.#holders.slice(0, count),
    }
  }
}
