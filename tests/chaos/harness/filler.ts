import { execFile } from 'node:child_process'
import { rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Site } from './site.js'

const run = promisify(execFile)

const NEAR_BYTES = 16 * 2 ** 20

/** A file that takes the pool's room, as something else on the same disk would. */
export class Filler implements AsyncDisposable {
  readonly #pool: string
  readonly #path: string

  constructor({ dir }: Site) {
    this.#pool = join(dir, 'pool')
    this.#path = join(this.#pool, 'filler')
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#pool)
    return bavail * bsize
  }

  /** Leaves `bytes` of the pool free, give or take what guests write meanwhile. */
  async leave(bytes: number): Promise<void> {
    for (let size = 0; ; ) {
      await run('sync', ['--file-system', this.#pool]) // btrfs gives room back with its next commit
      const excess = (await this.freeBytes()) - bytes
      if (excess < NEAR_BYTES) return
      await run('fallocate', ['--offset', String(size), '--length', String(excess), this.#path])
      size += excess
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#path, { force: true })
    await run('sync', ['--file-system', this.#pool])
  }
}
