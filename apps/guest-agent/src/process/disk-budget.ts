import { statfsSync } from 'node:fs'

const MAX_BYTES = 1024 * 1024 * 1024
/** The disk is the user's: output that nobody may ever ask for takes no more of it than this part. */
const PART_OF_DISK = 8

/** How much disk the output logs of all processes may take together. */
export class DiskBudget {
  #limitBytes: number | undefined
  #usedBytes = 0
  readonly #free: () => boolean

  /**
   * @param free Deletes some of what nobody waits for; false when there is nothing of that kind.
   * @param limitBytes Default: an eighth of the disk, at most 1 GiB.
   */
  constructor(free: () => boolean, limitBytes?: number) {
    this.#free = free
    this.#limitBytes = limitBytes
  }

  /** Takes note of bytes that were written, or with a minus deleted. */
  add(bytes: number): void {
    this.#usedBytes += bytes
  }

  /** Whether more is used than may be, on the disk that `directory` is on. */
  isExceeded(directory: string): boolean {
    this.#limitBytes ??= limitFor(directory)
    return this.#usedBytes > this.#limitBytes
  }

  free(): boolean {
    return this.#free()
  }
}

function limitFor(directory: string): number {
  const { blocks, bsize } = statfsSync(directory)
  return Math.min(MAX_BYTES, (blocks * bsize) / PART_OF_DISK)
}
