import { errorText, type Logger } from '@wrenn/base'
import { touchCapsules } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'

const FLUSH_MS = 1_000
/** So that whoever looks at the database sees that a stream is open, and not one of a control plane that died. */
const TOUCH_STREAMS_MS = 10_000

/** Collects when capsules were used and writes it once a second, off the path of requests. An open stream is use. */
export class Activity {
  readonly #db: Db
  readonly #logger: Logger
  readonly #times = new Map<string, Date>()
  readonly #streams = new Map<string, number>()
  #timer: NodeJS.Timeout | undefined
  #streamTimer: NodeJS.Timeout | undefined

  constructor(db: Db, logger: Logger) {
    this.#db = db
    this.#logger = logger
  }

  /** It was used just now. */
  touch(capsuleId: string): void {
    this.#times.set(capsuleId, new Date())
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref()
  }

  /** A stream to the capsule is open until the answer is disposed. */
  open(capsuleId: string): Disposable {
    this.#streams.set(capsuleId, (this.#streams.get(capsuleId) ?? 0) + 1)
    this.#streamTimer ??= setInterval(() => this.#touchStreams(), TOUCH_STREAMS_MS).unref()
    return { [Symbol.dispose]: () => this.#close(capsuleId) }
  }

  /** Whether a stream to it is open in this process; those of other control planes the database tells. */
  hasStreams(capsuleId: string): boolean {
    return this.#streams.has(capsuleId)
  }

  /** Whether it was used since the database was told last. */
  isUsed(capsuleId: string): boolean {
    return this.#times.has(capsuleId)
  }

  #close(capsuleId: string): void {
    this.touch(capsuleId)
    const left = (this.#streams.get(capsuleId) ?? 1) - 1
    if (left > 0) this.#streams.set(capsuleId, left)
    else this.#streams.delete(capsuleId)
    if (this.#streams.size > 0) return
    clearInterval(this.#streamTimer)
    this.#streamTimer = undefined
  }

  #touchStreams(): void {
    for (const capsuleId of this.#streams.keys()) this.touch(capsuleId)
  }

  /** Writes what was collected. Failing is logged and costs only those times. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const times = new Map(this.#times)
    this.#times.clear()
    if (times.size === 0) return
    try {
      await touchCapsules(this.#db, times)
    } catch (error) {
      this.#logger.warn({ error: errorText(error), capsules: times.size }, 'activity.not_written')
    }
  }
}
