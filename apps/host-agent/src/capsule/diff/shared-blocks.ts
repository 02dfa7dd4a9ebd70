import { type Extent, extentsOf, isUnsupported } from '../../host/extents/index.js'

/**
 * The bytes that two disk files have in common on the pool's device: what reflinks share was written by neither since they
 * parted. That proves equality whatever times the guest put on its files.
 */
export class SharedBlocks {
  /** Start and end of each stretch, ascending. */
  readonly #bounds: number[] = []

  /** Nothing is shared where the file system has no extent map. Writes dirty pages of both files out first. */
  static async between(from: string, to: string, signal: AbortSignal | undefined): Promise<SharedBlocks> {
    const shared = new SharedBlocks()
    try {
      await shared.#intersect(extentsOf(from, { signal }), extentsOf(to, { signal }))
    } catch (error) {
      if (!isUnsupported(error)) throw error
    }
    return shared
  }

  /** Whether the bytes are the same in both files, at the same place. */
  has(offset: number, length: number): boolean {
    let low = 0
    let high = this.#bounds.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#bounds[middle] ?? 0) <= offset) low = middle + 1
      else high = middle
    }
    // An odd count of bounds up to `offset`: it lies in a stretch, which the next bound ends.
    return low % 2 === 1 && (this.#bounds[low] ?? 0) >= offset + length
  }

  async #intersect(from: AsyncGenerator<Extent, void>, to: AsyncGenerator<Extent, void>): Promise<void> {
    try {
      let a = await from.next()
      let b = await to.next()
      while (!a.done && !b.done) {
        this.#add(a.value, b.value)
        if (endOf(a.value) <= endOf(b.value)) a = await from.next()
        else b = await to.next()
      }
    } finally {
      await from.return()
      await to.return()
    }
  }

  #add(a: Extent, b: Extent): void {
    const start = Math.max(a.offset, b.offset)
    const end = Math.min(endOf(a), endOf(b))
    if (end <= start || a.unwritten || b.unwritten || a.physical === undefined || b.physical === undefined) return
    if (a.physical - a.offset !== b.physical - b.offset) return
    if (this.#bounds.at(-1) === start) this.#bounds.pop()
    else this.#bounds.push(start)
    this.#bounds.push(end)
  }
}

function endOf({ offset, length }: Extent): number {
  return offset + length
}
