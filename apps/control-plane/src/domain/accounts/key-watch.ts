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
  #isAsking = false

  constructor(deps: KeyWatchDeps) {
    this.#deps = deps
  }

  /** Calls `onEnd` within a second after the key was revoked or expired, unless the answer is disposed before. */
  follow(principal: Principal, onEnd: (why: AppError) => void): Disposable {
    const follower = { principal, onEnd }
    this.#followers.add(follower)
    this.#timer ??= setTimeout(() => this.#look(), LOOK_EVERY_MS)
    return { [Symbol.dispose]: () => this.#followers.delete(follower) }
  }

  /** Nobody is told anything any more. */
  stop(): void {
    this.#followers.clear()
    clearTimeout(this.#timer)
  }

  #look(): void {
    this.#end(({ principal }) => hasExpired(principal))
    if (!this.#isAsking && this.#followers.size > 0) void this.#ask()
    this.#timer = this.#followers.size === 0 ? undefined : setTimeout(() => this.#look(), LOOK_EVERY_MS)
  }

  /** The time of a key ends whether the database answers or not. */
  async #ask(): Promise<void> {
    this.#isAsking = true
    try {
      const looked = new Set(this.#followers)
      const good = await goodKeys(this.#deps.db, [...new Set([...looked].map(({ principal }) => principal.id))])
      this.#end((follower) => looked.has(follower) && !good.has(follower.principal.id))
    } catch (error) {
      this.#deps.logger.debug({ error: errorText(error) }, 'key_watch.not_read')
    } finally {
      this.#isAsking = false
    }
  }

  #end(isOver: (follower: Follower) => boolean): void {
    for (const follower of this.#followers) {
      if (!isOver(follower)) continue
      this.#followers.delete(follower)
      follower.onEnd(new AppError('unauthorized', 'The API key was revoked or has expired.'))
    }
  }
}
