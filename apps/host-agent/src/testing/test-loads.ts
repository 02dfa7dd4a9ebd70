import { access, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, isErrno } from '@wrenn/base'
import type { LoadStatus, MemoryLoads } from '../capsule/machine.js'
import type { LazyVault, Vault } from '../capsule/state/vault.js'

const MARK = 'mem.loading'
const LOOK_EVERY_MS = 5

/** Memories that are loaded without a loader: the file is there at once, and counts for as much as a test says. */
export class TestLoads implements MemoryLoads {
  /** What becomes of those that are under way. */
  outcome: 'loading' | 'whole' | 'broken' = 'loading'
  startFails = false
  /** Directories that were finished. */
  readonly finished: string[] = []

  async status(dir: string): Promise<LoadStatus> {
    try {
      await access(join(dir, MARK))
      return (await readFile(join(dir, MARK), 'utf8')) === 'started' ? this.outcome : 'broken'
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return 'plain'
      throw error
    }
  }

  async failure(): Promise<string> {
    return 'It broke in a test.'
  }

  async source(dir: string): Promise<string> {
    return join(dir, 'mem')
  }

  async whole(dir: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      const status = await this.status(dir)
      if (status === 'broken') throw new AppError('snapshot_damaged', await this.failure())
      if (status !== 'loading') return
      await delay(LOOK_EVERY_MS, undefined, { signal })
    }
  }

  async finish(dir: string, signal: AbortSignal): Promise<void> {
    if ((await this.status(dir)) === 'plain') return
    await this.whole(dir, signal)
    await rm(join(dir, MARK))
    this.finished.push(dir)
  }

  async drop(): Promise<void> {}

  /** What a vault does lazily that has the whole state at once. */
  lazily(load: Vault['load']): LazyVault {
    return {
      load: async (id, folder, options) => {
        const result = await load(id, folder, options)
        await rm(join(folder, 'durable.json'), { force: true })
        await writeFile(join(folder, MARK), '')
        return result
      },
      start: async (_id, folder) => {
        if (this.startFails) throw new AppError('engine_failure', 'The memory loader cannot be started: a test.')
        await writeFile(join(folder, MARK), 'started')
      },
    }
  }
}
