import { AppError, errorText, type Logger } from '@wrenn/base'
import { goodKeys } from '../../store/api-keys.js'
import type { Db } from '../../store/database.js'
import { placeText, rolesInSessions } from '../../store/sessions.js'
import { hasExpired } from './api-keys.js'
import type { Principal, UserPrincipal } from './principal.js'

const LOOK_EVERY_MS = 500

interface Follower {
  readonly principal: Principal
  readonly onEnd: (why: AppError) => void
}

interface KeyWatchDeps {
  readonly db: Db
  readonly logger: Logger
}

/** Ends what is open for long when the key or the session that opened it ends, or may do something else. The database is asked only while something is open. */
export class KeyWatch {
  readonly #deps: KeyWatchDeps
  readonly #followers = new Set<Follower>()
  #timer: NodeJS.Timeout | undefined
  #isAsking = false

  constructor(deps: KeyWatchDeps) {
    this.#deps = deps
  }

  /** Calls `onEnd` within a second after the key was revoked or expired, or the session ended, unless the answer is disposed before. */
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
    // An access token's end is not that of its session.
    this.#end(({ principal }) => principal.kind === 'key' && hasExpired(principal))
    if (!this.#isAsking && this.#followers.size > 0) void this.#ask()
    this.#timer = this.#followers.size === 0 ? undefined : setTimeout(() => this.#look(), LOOK_EVERY_MS)
  }

  /** The time of a key ends whether the database answers or not. */
  async #ask(): Promise<void> {
    this.#isAsking = true
    try {
      const looked = new Set(this.#followers)
      const isGood = await this.#goodOnes([...looked].map(({ principal }) => principal))
      this.#end((follower) => looked.has(follower) && !isGood(follower.principal))
    } catch (error) {
      this.#deps.logger.debug({ error: errorText(error) }, 'key_watch.not_read')
    } finally {
      this.#isAsking = false
    }
  }

  async #goodOnes(all: readonly Principal[]): Promise<(principal: Principal) => boolean> {
    const { db } = this.#deps
    const keys = new Set(all.flatMap((each) => (each.kind === 'key' ? [each.id] : [])))
    const sessions = new Set(all.flatMap((each) => (each.kind === 'user' ? [each.sessionId] : [])))
    const good = keys.size === 0 ? new Set<string>() : await goodKeys(db, [...keys])
    const roles = sessions.size === 0 ? new Map<string, string>() : await rolesInSessions(db, [...sessions])
    return (principal) =>
      principal.kind === 'key' ? good.has(principal.id) : roles.get(principal.sessionId) === placeOf(principal)
  }

  #end(isOver: (follower: Follower) => boolean): void {
    for (const follower of this.#followers) {
      if (!isOver(follower)) continue
      this.#followers.delete(follower)
      follower.onEnd(new AppError('unauthorized', endOf(follower.principal)))
    }
  }
}

function placeOf({ teamId, role, permissions }: UserPrincipal): string {
  return placeText(teamId, role, permissions.has('platform.read'))
}

function endOf({ kind }: Principal): string {
  return kind === 'key' ? 'The API key was revoked or has expired.' : 'The session has ended, or may do something else.'
}
