import { stat } from 'node:fs/promises'
import { allocatedBytes } from '../allocated.js'
import { type ExtentOptions, extentsOf, isUnsupported } from './extent-map.js'

/** Where some files lie on the device of the pool, so that blocks that they share can be counted once. */
export interface PoolExtents {
  /** Where the files' pieces begin and end on the device, in the order of the files. */
  readonly starts: Float64Array
  readonly ends: Float64Array
  /** Allocated, but without a place that could be compared. */
  readonly unplacedBytes: number
  /** What no file shares at all: the least that removing the files gives back. */
  readonly exclusiveBytes: number
}

/**
 * Where `paths` lie in the pool. Where the file system has no extent map, the allocated blocks count and are exclusive.
 * Costs one `filefrag` per file and 16 bytes of memory per extent: for the background, not for a request.
 * @throws AppError `engine_failure`; the signal's reason.
 */
export async function poolExtents(paths: readonly string[], options: ExtentOptions = {}): Promise<PoolExtents> {
  const places = new Places()
  let unplacedBytes = 0
  let exclusiveBytes = 0
  for (const path of paths) {
    try {
      for await (const { physical, length, shared } of extentsOf(path, options)) {
        if (physical === undefined) unplacedBytes += length
        else places.push(physical, length)
        if (!shared) exclusiveBytes += length
      }
    } catch (error) {
      if (!isUnsupported(error)) throw error
      const bytes = allocatedBytes(await stat(path))
      unplacedBytes += bytes
      exclusiveBytes += bytes
    }
  }
  return { ...places.done(), unplacedBytes, exclusiveBytes }
}

/** Pieces in flat memory; a fragmented memory file has hundreds of thousands. */
class Places {
  #starts = new Float64Array(1024)
  #ends = new Float64Array(1024)
  #count = 0

  push(start: number, length: number): void {
    if (this.#count === this.#starts.length) {
      this.#starts = twice(this.#starts)
      this.#ends = twice(this.#ends)
    }
    this.#starts[this.#count] = start
    this.#ends[this.#count] = start + length
    this.#count += 1
  }

  done(): Pick<PoolExtents, 'starts' | 'ends'> {
    return { starts: this.#starts.slice(0, this.#count), ends: this.#ends.slice(0, this.#count) }
  }
}

function twice(old: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(old.length * 2)
  larger.set(old)
  return larger
}
