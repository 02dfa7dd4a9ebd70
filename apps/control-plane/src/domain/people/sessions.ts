import { AppError } from '@wrenn/base'
import type { Auth, Session } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findMembership } from '../../store/members.js'
import type { SessionRow, UserRow } from '../../store/schema.js'
import {
  addAccessToken,
  addSession,
  endOldSessions,
  listSessions,
  lockSession,
  moveHomelessSession,
  revokeSessions,
  rotate,
  setSessionTeam,
} from '../../store/sessions.js'
import { findUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import { type From, personActor } from './from.js'
import { foundTeam } from './teams.js'
import { placeOf, type Throttle } from './throttle.js'
import {
  digestOf,
  isAncestor,
  isSame,
  newAccessToken,
  newSecret,
  nextSecret,
  parseRefreshToken,
  refreshToken,
} from './tokens.js'

const ACCESS_SEC = 15 * 60
/** From the last refresh on. */
const SESSION_SEC = 30 * 24 * 3600
/** Of one person; the one that was used longest ago ends for another. */
const MAX_SESSIONS = 100
/** Tabs of one browser refresh at the same time, and answers get lost. */
const REPEAT_WITHIN_MS = 10_000

/** The answer to a login with all its tokens; where cookies carry them, `http/` takes them out. */
export interface Opened extends Auth {
  readonly token: string
  readonly refresh_token: string
}

interface OpenOptions {
  readonly wantedTeamId?: string
  /** Whether its person has proved to the one who asks who they are. @default true */
  readonly isConfirmed?: boolean
  /** Who told whose it is; otherwise the platform knew by itself. */
  readonly provider?: string | undefined
}

interface SessionsDeps {
  readonly db: Db
  readonly throttle: Throttle
  /** Called when sessions may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** Logins of people: how they begin, go on and end. */
export class Sessions {
  readonly #deps: SessionsDeps

  constructor(deps: SessionsDeps) {
    this.#deps = deps
  }

  /**
   * Begins one, in the wanted team, or else in the one that the person has been in for longest; who is in none gets one. In the
   * caller's transaction.
   */
  async open(tx: Db, user: UserRow, from: From, options: OpenOptions = {}): Promise<Opened> {
    const { wantedTeamId, isConfirmed = true, provider } = options
    const wanted = wantedTeamId === undefined ? undefined : await findMembership(tx, user.id, wantedTeamId)
    const { teamId } = wanted ?? (await findMembership(tx, user.id)) ?? (await foundTeam(tx, user))
    const secret = newSecret()
    const session = await addSession(tx, {
      userId: user.id,
      teamId,
      refreshHash: digestOf(secret),
      rotationKey: newSecret(),
      lifeSec: SESSION_SEC,
      client: from,
      isConfirmed,
    })
    await endOldSessions(tx, user.id, MAX_SESSIONS)
    const details = provider === undefined ? {} : { details: { provider } }
    await writeAudit(tx, { ...this.#entry('session.login', session, personActor(user, from)), ...details })
    return await this.#answer(tx, user, session, secret)
  }

  /**
   * The next tokens of a session. A refresh token is good once. The one before it gives the same answer again for 10 s; any older one, and
   * that one later, ends the session: two have it, and nobody knows who is the right one.
   * @throws AppError `unauthorized`, `limit_exceeded`
   */
  async refresh(token: string, from: From): Promise<Opened> {
    const { throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('tokenPlace', place)
    const parts = parseRefreshToken(token)
    const opened = parts === undefined ? 'unknown' : await this.#refresh(parts.sessionId, parts.secret, from)
    if (typeof opened !== 'string') {
      await throttle.uncount('tokenPlace', place)
      return opened
    }
    if (opened === 'unknown') throw new AppError('unauthorized', 'The session is over; log in again.')
    this.#deps.onChange()
    throw new AppError('unauthorized', 'This refresh token was used before, so its session was ended; log in again.')
  }

  async #refresh(id: string, secret: string, from: From): Promise<Opened | 'unknown' | 'replayed'> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      await moveHomelessSession(tx, id)
      const session = await lockSession(tx, id, REPEAT_WITHIN_MS)
      const user = session === undefined ? undefined : await findUser(tx, session.user_id)
      if (session === undefined || user?.status !== 'active' || user.deleted_at !== null) return 'unknown'
      const digest = digestOf(secret)
      const next = nextSecret(secret, session.rotation_key)
      if (isSame(digest, session.refresh_hash)) {
        await rotate(tx, session, digestOf(next), from, SESSION_SEC)
        return await this.#answer(tx, user, session, next)
      }
      if (session.isRecent && session.rotated_from !== null && isSame(digest, session.rotated_from)) {
        return await this.#answer(tx, user, session, next)
      }
      // Whoever knows only the id of a session cannot end it.
      if (!isAncestor(secret, session.refresh_hash, session.rotation_key, session.rotations)) return 'unknown'
      await revokeSessions(tx, { userId: user.id, only: session.id })
      await writeAudit(tx, {
        ...this.#entry('session.replay', session, personActor(user, from)),
        outcome: 'failure',
      })
      return 'replayed'
    })
  }

  /** Works in another team from now on, with the tokens that there are and one more. @throws AppError `not_found` */
  async switchTeam(principal: UserPrincipal, teamId: string, from: From): Promise<Auth & { readonly token: string }> {
    const opened = await this.#deps.db.transaction().execute(async (tx) => {
      const session = await lockSession(tx, principal.sessionId)
      const user = await findUser(tx, principal.id)
      if (session === undefined || user === undefined) throw new AppError('unauthorized', 'The session is over.')
      if ((await findMembership(tx, principal.id, teamId)) === undefined) {
        throw new AppError('not_found', 'You are in no such team.')
      }
      await setSessionTeam(tx, session.id, teamId)
      const moved = { ...session, team_id: teamId }
      await writeAudit(tx, this.#entry('session.switch_team', moved, personActor(user, from)))
      return await this.#answer(tx, user, moved, '')
    })
    this.#deps.onChange()
    const { refresh_token: _, ...answer } = opened
    return answer
  }

  /** Those that go on, the one used last first. */
  async list({ id, sessionId }: UserPrincipal): Promise<Session[]> {
    const rows = await listSessions(this.#deps.db, id)
    return rows.map((row) => ({
      id: row.id,
      team_id: row.team_id,
      current: row.id === sessionId,
      ip: row.ip,
      user_agent: row.user_agent,
      created_at: row.created_at.toISOString(),
      last_used: row.last_used_at.toISOString(),
      expires_at: row.expires_at.toISOString(),
    }))
  }

  /** Ends one of one's own. @throws AppError `session_not_found` */
  async revoke(principal: UserPrincipal, sessionId: string, from: From): Promise<void> {
    const ended = await this.#end(principal, { only: sessionId }, from)
    if (ended === 0) throw new AppError('session_not_found', `You have no session ${sessionId}.`)
  }

  /** Ends all of one's own but the one that asks. */
  async revokeOthers(principal: UserPrincipal, from: From): Promise<void> {
    await this.#end(principal, { except: principal.sessionId }, from)
  }

  async #end(principal: UserPrincipal, which: { only?: string; except?: string }, from: From): Promise<number> {
    const { id, teamId, email } = principal
    const ended = await this.#deps.db.transaction().execute(async (tx) => {
      const ids = await revokeSessions(tx, { userId: id, ...which })
      for (const each of ids) {
        await writeAudit(tx, {
          teamId,
          actor: personActor({ id, email }, from),
          action: each === principal.sessionId ? 'session.logout' : 'session.revoke',
          resource: { type: 'session', id: each },
          scope: 'admin',
        })
      }
      return ids.length
    })
    this.#deps.onChange()
    return ended
  }

  #entry(action: string, session: SessionRow, actor: ReturnType<typeof personActor>) {
    const resource = { type: 'session', id: session.id } as const
    return { teamId: session.team_id, actor, action, resource, scope: 'admin' } as const
  }

  async #answer(tx: Db, user: UserRow, session: SessionRow, secret: string): Promise<Opened> {
    const token = newAccessToken()
    const expiresAt = await addAccessToken(tx, session.id, digestOf(token), ACCESS_SEC)
    return {
      token,
      expires_at: expiresAt.toISOString(),
      refresh_token: refreshToken(session.id, secret),
      session_id: session.id,
      user_id: user.id,
      team_id: session.team_id,
      email: user.email,
      name: user.name,
    }
  }
}
