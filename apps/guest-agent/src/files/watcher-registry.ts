import { AppError } from '@wrenn/base'
import { randomHex } from '../system/random.js'
import type { EventQueue } from './event-queue.js'
import type { DirectoryWatcher } from './watcher.js'

const MAX_WATCHERS = 1_000
const MAX_IDLE_MS = 60 * 60_000

/** A watcher with the events that its client has not asked for yet. */
export interface PolledWatcher {
  readonly queue: EventQueue
  readonly watcher: DirectoryWatcher
  /** Whether each event comes with what is then at its path. */
  readonly includeEntry: boolean
}

/** Watchers that clients poll; one that nobody polls for an hour goes away. */
export class WatcherRegistry {
  readonly #watchers = new Map<string, PolledWatcher & { usedAtMs: number }>()

  add(watcher: PolledWatcher): string {
    this.#expire()
    if (this.#watchers.size >= MAX_WATCHERS) {
      watcher.watcher.close()
      throw new AppError('limit_exceeded', `At most ${MAX_WATCHERS} watchers; remove some.`)
    }
    const id = `w-${randomHex(8)}`
    this.#watchers.set(id, { ...watcher, usedAtMs: performance.now() })
    return id
  }

  /** @throws AppError `not_found` */
  find(id: string): PolledWatcher {
    const watcher = this.#watchers.get(id)
    if (watcher === undefined) throw new AppError('not_found', `watcher with id ${id} not found`)
    watcher.usedAtMs = performance.now()
    return watcher
  }

  /** @throws AppError `not_found` */
  remove(id: string): void {
    this.find(id).watcher.close()
    this.#watchers.delete(id)
  }

  close(): void {
    for (const { watcher } of this.#watchers.values()) watcher.close()
    this.#watchers.clear()
  }

  #expire(): void {
    for (const [id, { usedAtMs }] of this.#watchers) if (performance.now() - usedAtMs > MAX_IDLE_MS) this.remove(id)
  }
}
