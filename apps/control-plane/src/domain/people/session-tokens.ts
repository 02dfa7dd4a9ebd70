import { AppError } from '@wrenn/base'
import { type Permission, permissionsOf, permissionsOfRole, teamScopes } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import { findHolder, type Holder, moveHomelessSession } from '../../store/sessions.js'
import { hasExpired, type UserPrincipal } from '../accounts/index.js'
import { digestOf } from './tokens.js'

/** Also the channel's name in the triggers of the migration. */
const CHANNEL = 'person_changed'
const CACHE_LIMIT = 10_000

interface SessionTokensDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'isFresh' | 'listen'>
}

/**
 * Knows whose an access token is and what they may do now: account, membership and role are those of this moment, not those of the login.
 * Answers are kept and believed as those about keys are: only while the database is heard.
 */
export class SessionTokens {
  readonly #deps: SessionTokensDeps
  readonly #cache = new Map<string, UserPrincipal>()
  /** Grows with each change; what was read before one is not kept after it. */
  #version = 0

  constructor(deps: SessionTokensDeps) {
    this.#deps = deps
    const forget = (): void => this.forget()
    deps.notifications.listen(CHANNEL, forget, forget)
  }

  /** @throws AppError `unauthorized`, `account_deactivated`, `no_team` */
  async authenticate(token: string): Promise<UserPrincipal> {
    const digest = digestOf(token)
    const known = this.#deps.notifications.isFresh ? this.#cache.get(digest) : undefined
    const principal = known ?? (await this.#load(digest))
    if (hasExpired(principal)) throw new AppError('unauthorized', 'The access token has expired; refresh the session.')
    return principal
  }

  /** Reads everybody anew. */
  forget(): void {
    this.#version++
    this.#cache.clear()
  }

  async #load(digest: string): Promise<UserPrincipal> {
    const version = this.#version
    const { db } = this.#deps
    let holder = await findHolder(db, digest)
    if (holder?.role === null && (await moveHomelessSession(db, holder.sessionId)))
      holder = await findHolder(db, digest)
    if (holder === undefined) throw new AppError('unauthorized', 'The access token is not valid; log in again.')
    const principal = principalOf(holder)
    if (version === this.#version) {
      if (this.#cache.size >= CACHE_LIMIT) this.#cache.clear()
      this.#cache.set(digest, principal)
    }
    return principal
  }
}

function principalOf({
  sessionId,
  userId,
  email,
  name,
  isAdmin,
  status,
  teamId,
  role,
  expiresAt,
}: Holder): UserPrincipal {
  if (status !== 'active') throw new AppError('account_deactivated', 'This account was disabled.')
  if (role === null) throw new AppError('no_team', 'You are no longer in the team of this session; log in again.')
  const permissions = new Set<Permission>([...permissionsOfRole(role), 'account.use'])
  if (isAdmin) for (const each of permissionsOf(['platform'])) permissions.add(each)
  const scopes = teamScopes.filter((scope) => [...permissionsOf([scope])].every((each) => permissions.has(each)))
  return { kind: 'user', id: userId, name, email, sessionId, teamId, role, scopes, permissions, expiresAt }
}
