import { randomInt } from 'node:crypto'
import { AppError } from '@wrenn/base'
import type { BeginDeviceLoginInput, DeviceLogin, WaitingDevice } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import {
  addDeviceLogin,
  decideDeviceLogin,
  findApprover,
  findDeviceLogin,
  findUndecided,
  takeApproval,
} from '../../store/device-logins.js'
import { lockUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import { type From, personActor } from './from.js'
import type { Opened, Sessions } from './sessions.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf, newCode } from './tokens.js'

const LIFE_SEC = 10 * 60
const POLL_SEC = 2
/** No vowels, so no words; nothing that looks like another (RFC 8628, 6.1). */
const LETTERS = 'BCDFGHJKLMNPQRSTVWXZ'
const CODE_LENGTH = 8

interface DeviceLoginsDeps {
  readonly db: Db
  readonly sessions: Pick<Sessions, 'open'>
  readonly throttle: Throttle
  /** Where people are, without a slash at its end. */
  readonly publicUrl: string
}

/**
 * Lets people log in programs that have no page: the program shows a short code, its person approves it in a session of theirs, and the
 * program, which alone has the long code, gets a session of its own (after RFC 8628).
 */
export class DeviceLogins {
  readonly #deps: DeviceLoginsDeps

  constructor(deps: DeviceLoginsDeps) {
    this.#deps = deps
  }

  /** A program begins to wait. @throws AppError `limit_exceeded` */
  async begin({ client }: BeginDeviceLoginInput, from: From): Promise<DeviceLogin> {
    const { db, throttle, publicUrl } = this.#deps
    await throttle.count('devicePlace', placeOf(from.ip))
    const deviceCode = newCode()
    for (;;) {
      const userCode = Array.from({ length: CODE_LENGTH }, () => LETTERS[randomInt(LETTERS.length)]).join('')
      const login = { digest: digestOf(deviceCode), userCode, client, ip: from.ip, lifeSec: LIFE_SEC }
      const end = await addDeviceLogin(db, login)
      if (end === undefined) continue
      const shown = `${userCode.slice(0, 4)}-${userCode.slice(4)}`
      return {
        device_code: deviceCode,
        user_code: shown,
        verification_uri: `${publicUrl}/device`,
        verification_uri_complete: `${publicUrl}/device?code=${shown}`,
        expires_at: end.toISOString(),
        interval_sec: POLL_SEC,
      }
    }
  }

  /** What a person is asked about. @throws AppError `not_found`, `limit_exceeded` */
  async look(userCode: string, principal: UserPrincipal): Promise<WaitingDevice> {
    await this.#deps.throttle.count('deviceCode', principal.id)
    const waiting = await findUndecided(this.#deps.db, userCode)
    if (waiting === undefined) throw noneWaits()
    return {
      client: waiting.client,
      ip: waiting.ip,
      created_at: waiting.created_at.toISOString(),
      expires_at: waiting.expires_at.toISOString(),
    }
  }

  /** Lets the program in, or sends it away; once. @throws AppError `not_found`, `limit_exceeded` */
  async decide(userCode: string, approve: boolean, principal: UserPrincipal, from: From): Promise<void> {
    await this.#deps.throttle.count('deviceCode', principal.id)
    await this.#deps.db.transaction().execute(async (tx) => {
      const decided = await decideDeviceLogin(tx, userCode, { sessionId: principal.sessionId, denied: !approve })
      if (decided === undefined) throw noneWaits()
      await writeAudit(tx, {
        teamId: principal.teamId,
        actor: personActor(principal, from),
        action: approve ? 'session.approve_device' : 'session.deny_device',
        resource: { type: 'user', id: principal.id },
        scope: 'admin',
        details: { client: decided.client, ip: decided.ip },
      })
    })
  }

  /**
   * The session of a program that was let in; `undefined` while nobody has decided. It works in the team in which it was approved.
   * @throws AppError `forbidden` when it was sent away, `login_expired` when nobody waits with this code any more, `limit_exceeded`
   */
  async finish(deviceCode: string, from: From): Promise<Opened | undefined> {
    const { db, sessions, throttle } = this.#deps
    const digest = digestOf(deviceCode)
    const waiting = await findDeviceLogin(db, digest)
    if (waiting === undefined) {
      await throttle.count('tokenPlace', placeOf(from.ip))
      throw isOver()
    }
    if (waiting.decided_by === null) return undefined
    if (waiting.denied) throw new AppError('forbidden', 'Somebody has refused this login.')
    return await db.transaction().execute(async (tx) => {
      const approver = await findApprover(tx, digest)
      // What ends their sessions from here on ends this one too.
      const user = approver === undefined ? undefined : await lockUser(tx, approver)
      const approval = await takeApproval(tx, digest)
      if (approval === undefined || user?.status !== 'active' || user.deleted_at !== null) throw isOver()
      return await sessions.open(tx, user, from, { wantedTeamId: approval.teamId, isConfirmed: false })
    })
  }
}

function noneWaits(): AppError {
  return new AppError('not_found', 'No program waits with this code any more. Codes are good once, for 10 minutes.')
}

function isOver(): AppError {
  return new AppError('login_expired', 'Nobody waits with this code any more: the login was used, or took too long.')
}
