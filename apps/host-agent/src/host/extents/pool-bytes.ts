import { stat } from 'node:fs/promises'
import { type ExtentOptions, extentsOf, isUnsupported } from './extent-map.js'

export interface PoolBytes {
  /** Bytes on the device, a block that several of the files share counted once. */
  readonly bytes: number
  /** Of these, what no file shares at all: the least that removing the files gives back. */
  readonly exclusiveBytes: number
}

/**
 * What `paths` take of the pool. Where the file system has no extent map, the allocated blocks count and all are exclusive.
 * Costs one `filefrag` per file and 16 bytes of memory per shared extent: for the background, not for a request.
 * @throws AppError `engine_failure`; the signal's reason.
 */
export async function poolBytes(paths: readonly string[], options: ExtentOptions = {}): Promise<PoolBytes> {
  const shared = new IntervalList()
  let exclusiveBytes = 0
  for (const path of paths) {
    try {
      for await (const extent of extentsOf(path, options)) {
        if (extent.shared && extent.physical !== undefined) shared.push(extent.physical, extent.length)
        else exclusiveBytes += extent.length
      }
    } catch (error) {
      if (!isUnsupported(error)) throw error
      exclusiveBytes += (await stat(path)).blocks * 512
    }
  }
  return { bytes: exclusiveBytes + shared.unionBytes(), exclusiveBytes }
}

/** Intervals in flat memory; a fragmented memory file has hundreds of thousands. */
class IntervalList {
  #starts = new Float64Array(1024)
  #lengths = new Float64Array(1024)
  #count = 0

  push(start: number, length: number): void {
    if (this.#count === this.#starts.length) this.#grow()
    this.#starts[this.#count] = start
    this.#lengths[this.#count] = length
    this.#count += 1
  }

  unionBytes(): number {
    const order = Uint32Array.from({ length: this.#count }, (_, index) => index)
    const startOf = (index: number | undefined): number => this.#starts[index ?? 0] ?? 0
    order.sort((a, b) => startOf(a) - startOf(b))
    let total = 0
    let covered = 0
    for (const index of order) {
      const start = startOf(index)
      const end = start + (this.#lengths[index] ?? 0)
      total += Math.max(0, end - Math.max(start, covered))
      covered = Math.max(covered, end)
    }
    return total
  }

  #grow(): void {
    const double = (old: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> => {
      const larger = new Float64Array(old.length * 2)
      larger.set(old)
      return larger
    }
    this.#starts = double(this.#starts)
    this.#lengths = double(this.#lengths)
  }
}
