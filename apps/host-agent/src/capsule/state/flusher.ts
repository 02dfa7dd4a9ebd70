import { errorText, type Logger } from '@wrenn/base'
import { STATE_FILES } from '../state-files.js'
import type { Durable, StateStore } from './states.js'

/** A state that is resumed at once never needs to reach the disk: give its owner this long to think again. */
const SETTLE_MS = 1_000

/** Brings files to the disk and hashes them; injected, because it works with the real file system. */
export type MakeDurable = (
  dir: string,
  names: readonly string[],
  options: { readonly signal: AbortSignal },
) => Promise<Durable['files']>

/** How a state is brought to the disk. */
export interface FlushOptions {
  /** The state was saved by an earlier run of the host agent: what its files are now need not be what they were then. @default false */
  readonly isLate?: boolean
  /** @default a second */
  readonly settleMs?: number | undefined
  /** Told why it is not durable; not when the flush was given up. */
  readonly onFailure?: ((error: unknown) => void) | undefined
}

interface Job {
  readonly dir: string
  readonly options: FlushOptions
  readonly abort: AbortController
  readonly onDurable: (atMs: number) => Promise<void>
}

/**
 * Makes saved states durable in the background, one after the other: neither `fsync` nor a checksum may sit on the path of a
 * pause, because both grow with what the guest has touched.
 */
export class Flusher {
  readonly #states: StateStore
  readonly #makeDurable: MakeDurable
  readonly #logger: Logger
  readonly #settleMs: number
  readonly #jobs: Job[] = []
  #worker: Promise<void> | undefined
  #current: Job | undefined
  /** Jobs whose files are not all here yet, by directory: others do not wait for them. */
  readonly #preparing = new Map<string, { readonly job: Job; readonly ended: Promise<void> }>()
  #closed = false

  constructor(states: StateStore, makeDurable: MakeDurable, logger: Logger, settleMs = SETTLE_MS) {
    this.#states = states
    this.#makeDurable = makeDurable
    this.#logger = logger
    this.#settleMs = settleMs
  }

  /** Queues a complete state; `onDurable` is called once it would survive a power loss. */
  enqueue(dir: string, onDurable: (atMs: number) => Promise<void>, options: FlushOptions = {}): void {
    if (this.#closed) return
    this.cancel(dir)
    const job = { dir, options, abort: new AbortController(), onDurable }
    this.#preparing.set(dir, { job, ended: this.#prepare(job) })
  }

  /** Waits until nothing of a flush that was given up works on the state's files any more. */
  async settled(dir: string): Promise<void> {
    await this.#preparing.get(dir)?.ended
  }

  /** Never rejects. */
  async #prepare(job: Job): Promise<void> {
    const { signal } = job.abort
    try {
      await this.#states.finish(job.dir, signal)
      if (signal.aborted) return
      this.#jobs.push(job)
      this.#start()
    } catch (error) {
      if (!signal.aborted) this.#failed(job, error)
    } finally {
      if (this.#preparing.get(job.dir)?.job === job) this.#preparing.delete(job.dir)
    }
  }

  #failed({ dir, options }: Job, error: unknown): void {
    this.#logger.error({ dir, error: errorText(error) }, 'state.flush_failed')
    options.onFailure?.(error)
  }

  #start(): void {
    this.#worker ??= this.#work().finally(() => {
      this.#worker = undefined
      if (this.#jobs.length > 0) this.#start() // queued after the last look
    })
  }

  /** The state is about to change or to go. */
  cancel(dir: string): void {
    this.#preparing.get(dir)?.job.abort.abort()
    const index = this.#jobs.findIndex((job) => job.dir === dir)
    if (index !== -1) this.#jobs.splice(index, 1)
    if (this.#current?.dir === dir) this.#current.abort.abort()
  }

  /** Everything below a directory is about to go. */
  cancelBelow(prefix: string): void {
    for (const dir of this.#preparing.keys()) if (dir.startsWith(prefix)) this.cancel(dir)
    for (const { dir } of [...this.#jobs]) if (dir.startsWith(prefix)) this.cancel(dir)
    if (this.#current?.dir.startsWith(prefix) === true) this.#current.abort.abort()
  }

  /** Breaks off the flush that is under way; the states stay and are flushed after the next start. */
  async close(): Promise<void> {
    this.#closed = true
    this.#jobs.length = 0
    const preparing = [...this.#preparing.values()]
    for (const { job } of preparing) job.abort.abort()
    await Promise.all(preparing.map(({ ended }) => ended))
    this.#current?.abort.abort()
    await this.#worker
  }

  async #work(): Promise<void> {
    for (let job = this.#jobs.shift(); job !== undefined; job = this.#jobs.shift()) {
      this.#current = job
      const running = job
      await this.#flush(job).catch((error: unknown) => this.#failed(running, error))
      this.#current = undefined
    }
  }

  async #flush({ dir, abort, onDurable, options: { isLate = false, settleMs = this.#settleMs } }: Job): Promise<void> {
    const { signal } = abort
    await settle(settleMs, signal)
    if (signal.aborted) return
    const manifest = await this.#states.read(dir)
    if (manifest === undefined) return // it was taken back or removed meanwhile
    const started = performance.now()
    try {
      const files = await this.#makeDurable(this.#states.path(dir), Object.values(STATE_FILES), { signal })
      if (signal.aborted) return
      const atMs = await this.#states.markDurable(dir, { stateSha256: manifest.stateSha256, files, isLate })
      if (signal.aborted) return
      await onDurable(atMs)
      this.#logger.debug({ dir, ms: Math.round(performance.now() - started) }, 'state.durable')
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }
}

async function settle(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}
