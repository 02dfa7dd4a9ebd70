import { type BigIntStats, fstatSync } from 'node:fs'
import { KeyedMutex } from '@wrenn/base'

/** One reading of a file from its first byte to its last. */
export interface Reading {
  /** True once an upload began to replace the content: bytes read from then on belong to another version. */
  readonly isStale: boolean
  /** To be called when no more is read. */
  end(): void
}

/**
 * Keeps what the agent itself does to one file apart: contents are replaced one after the other, and whoever reads a file while
 * that happens learns of it. Other programs in the guest are not bound by it.
 */
export class FileVersions {
  readonly #replacing = new KeyedMutex()
  readonly #readings = new Map<string, Set<{ isStale: boolean }>>()

  /** Begins to read, when no replacement is under way. */
  async read(fd: number): Promise<Reading> {
    const key = keyOf(fstatSync(fd, { bigint: true }))
    return await this.#replacing.run(key, async () => this.#begin(key))
  }

  /**
   * Runs `work`, which replaces the file's content, while no other replacement of the same file runs.
   * @param judge may throw to leave it as it is; what it sees is what is replaced
   */
  async replace<T>(fd: number, work: () => Promise<T>, judge: () => void = () => {}): Promise<T> {
    const key = keyOf(fstatSync(fd, { bigint: true }))
    return await this.#replacing.run(key, async () => {
      judge()
      for (const reading of this.#readings.get(key) ?? []) reading.isStale = true
      return await work()
    })
  }

  #begin(key: string): Reading {
    const all = this.#readings.get(key) ?? new Set()
    this.#readings.set(key, all)
    const state = { isStale: false }
    all.add(state)
    const end = (): void => {
      all.delete(state)
      if (all.size === 0 && this.#readings.get(key) === all) this.#readings.delete(key)
    }
    return Object.assign(state, { end })
  }
}

function keyOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`
}
