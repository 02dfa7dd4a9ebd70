import { AppError, errorText, type Logger } from '@wrenn/base'
import { goodKeys } from '../../store/api-keys.js'
import type { Db } from '../../store/database.js'
import { hasExpired } from './api-keys.js'
import type { Principal } from './principal.js'

const LOOK_EVERY_MS = 500

interface Follower {
  readonly principal: Principal
  readonly onEnd: (why: AppError) => void
}

interface KeyWatchDeps {
  readonly db: Db
  readonly logger: Logger
}

/** Ends what is open for long when the key that opened it ends. The database is asked only while something is open. */
export class KeyWatch {
  readonly #deps: KeyWatchDeps
  readonly #followers = new Set<Follower>()
  #timer: NodeJS.Timeout | undefined

  constructor(deps: KeyWatchDeps) {
    this.#deps = deps
  }

  /** Calls `onEnd` within a second after the key was revoked or expired, unless the answer is disposed before. */
  follow(principal: Principal, onEnd: (why: AppError) => void): Disposable {
    const follower = { principal, onEnd }
    this.#followers.add(follower)
    this.#timer ??= setTimeout(() => void this.#look(), LOOK_EVERY_MS)
    return { [Symbol.dispose]: () => this.#followers.delete(follower) }
  }

  /** Nobody is told anything any more. */
  stop(): void {
    this.#followers.clear()
    clearTimeout(this.#timer)
  }

  async #look(): Promise<void> {
    try {
      const looked = [...this.#followers]
      const good = await goodKeys(this.#deps.db, [...new Set(looked.map(({ principal }) => principal.id))])
      for (const follower of looked) {
        const { principal, onEnd } = follower
        if (!this.#followers.has(follower)) continue
        if (good.has(principal.id) && !hasExpired(principal)) continue
        this.#followers.delete(follower)
        onEnd(new AppError('unauthorized', 'The API key was revoked or has expired.'))
      }
    } catch (error) {
      this.#deps.logger.debug({ error: errorText(error) }, 'key_watch.not_read')
    }
    this.#timer = this.#followers.size === 0 ? undefined : setTimeout(() => void this.#look(), LOOK_EVERY_MS)
  }
}
