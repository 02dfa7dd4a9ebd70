import { errorText, type Logger } from '@wrenn/base'
import { touchCapsules } from '../store/capsules.js'
import type { Db } from '../store/database.js'

const FLUSH_MS = 1_000

/** Collects when capsules were used and writes it once a second, off the path of requests. */
export class Activity {
  readonly #db: Db
  readonly #logger: Logger
  readonly #times = new Map<string, Date>()
  #timer: NodeJS.Timeout | undefined

  constructor(db: Db, logger: Logger) {
    this.#db = db
    this.#logger = logger
  }

  touch(capsuleId: string): void {
    this.#times.set(capsuleId, new Date())
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref()
  }

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
