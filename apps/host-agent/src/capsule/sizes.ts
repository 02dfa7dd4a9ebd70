import { errorText, type Logger } from '@wrenn/base'
import type { Machine } from './machine.js'
import type { StateStore } from './states.js'

/** How long a measurement serves; the extent map of a large, fragmented memory takes a while to read. */
const FRESH_MS = 60_000

export interface Size {
  /** What the files take, each shared block once. */
  readonly bytes: number
  /** What removing them would give back. */
  readonly exclusiveBytes: number
}

const UNKNOWN: Size = { bytes: 0, exclusiveBytes: 0 }

/** What saved states and running capsules take of the pool, measured in the background. */
export class Sizes {
  readonly #machine: Machine
  readonly #states: StateStore
  readonly #logger: Logger
  readonly #known = new Map<string, { readonly size: Size; readonly atMs: number }>()
  readonly #running = new Map<string, Promise<Size>>()
  /** To be measured behind everybody's back: one after the other, for each costs a process per file. */
  readonly #waiting = new Set<string>()
  #worker: Promise<void> | undefined

  constructor(machine: Machine, states: StateStore, logger: Logger) {
    this.#machine = machine
    this.#states = states
    this.#logger = logger
  }

  /** What is known at once, 0 when nothing is; a stale or missing measurement is made anew meanwhile. */
  known(dir: string): Size {
    const known = this.#known.get(dir)
    if (known === undefined || Date.now() - known.atMs > FRESH_MS) this.#measureLater(dir)
    return known?.size ?? UNKNOWN
  }

  #measureLater(dir: string): void {
    this.#waiting.add(dir)
    this.#worker ??= this.#measureWaiting().finally(() => {
      this.#worker = undefined
    })
  }

  async #measureWaiting(): Promise<void> {
    for (const dir of this.#waiting) {
      this.#waiting.delete(dir)
      await this.measure(dir)
    }
  }

  /** Measures now; joins a measurement under way. Unknown files count as nothing. */
  async measure(dir: string): Promise<Size> {
    const running = this.#running.get(dir) ?? this.#measure(dir).finally(() => this.#running.delete(dir))
    this.#running.set(dir, running)
    return await running
  }

  forget(dir: string): void {
    this.#known.delete(dir)
  }

  /** Everything below a directory is gone. */
  forgetBelow(prefix: string): void {
    for (const dir of this.#known.keys()) if (dir.startsWith(prefix)) this.#known.delete(dir)
  }

  async #measure(dir: string): Promise<Size> {
    const { memoryPath, diskPath } = this.#states.files(dir)
    try {
      const size = await this.#machine.pool.measure([memoryPath, diskPath])
      this.#known.set(dir, { size, atMs: Date.now() })
      return size
    } catch (error) {
      this.#known.delete(dir)
      this.#logger.debug({ dir, error: errorText(error) }, 'state.not_measured') // it was moved or removed meanwhile
      return UNKNOWN
    }
  }
}
