import { AppError } from '@wrenn/base'
import type { PasskeyAssertion } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findFactors } from '../../store/factors.js'
import { confirmSession, isConfirmed } from '../../store/sessions.js'
import { findUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import { type From, personActor } from './from.js'
import type { Passkeys } from './passkeys.js'
import type { Passwords } from './passwords.js'
import { placeOf, type Throttle } from './throttle.js'

/** How long somebody counts as having just proved who they are: by a login, or by this. */
const FRESH_SEC = 10 * 60

interface ConfirmationsDeps {
  readonly db: Db
  readonly passkeys: Passkeys
  readonly passwords: Passwords
  readonly throttle: Throttle
}

/** For what a session that somebody left open, or has stolen, must not do: its person proves anew who they are. */
export class Confirmations {
  readonly #deps: ConfirmationsDeps

  constructor(deps: ConfirmationsDeps) {
    this.#deps = deps
  }

  /** @throws AppError `wrong_password`, `limit_exceeded` */
  async byPassword(principal: UserPrincipal, password: string, from: From): Promise<void> {
    const { db, passwords, throttle } = this.#deps
    const { id, email, sessionId } = principal
    const place = placeOf(from.ip)
    await throttle.count('login', email, place)
    const user = await findUser(db, id)
    if (!(await passwords.verify(user?.password_hash, password))) {
      await this.#failed(principal, 'password', from)
      throw new AppError('wrong_password', 'password: is not the password of this account')
    }
    await throttle.forget('login', email, place)
    await confirmSession(db, sessionId)
  }

  /** What one's passkeys are asked to sign. @throws AppError `conflict` without any, `not_supported` */
  async passkeyOptions({ id, sessionId }: UserPrincipal) {
    const { db, passkeys } = this.#deps
    const { passkeys: known } = await findFactors(db, id)
    if (known.length === 0) throw new AppError('conflict', 'You have no passkey.')
    return await passkeys.requestOptions({ purpose: 'confirm', boundTo: sessionId }, known)
  }

  /** @throws AppError `wrong_code`, `not_supported` */
  async byPasskey(principal: UserPrincipal, assertion: PasskeyAssertion, from: From): Promise<void> {
    const { db, passkeys } = this.#deps
    const { id, sessionId } = principal
    const signed = await passkeys.verify(assertion, { purpose: 'confirm', boundTo: sessionId })
    const isRight = signed?.userId === id && (await db.transaction().execute((tx) => passkeys.record(tx, signed)))
    if (!isRight) {
      await this.#failed(principal, 'passkey', from)
      throw new AppError('wrong_code', 'passkey: is none of yours, or did not sign what it was asked to')
    }
    await confirmSession(db, sessionId)
  }

  /** @throws AppError `confirmation_needed` unless its person has just proved who they are */
  async require(db: Db, { sessionId }: UserPrincipal): Promise<void> {
    if (await isConfirmed(db, sessionId, FRESH_SEC)) return
    throw new AppError('confirmation_needed', 'This needs a proof, of the last 10 minutes, that it is you.')
  }

  /** Whoever has a session and guesses is seen by its owner. */
  async #failed({ id, email, teamId }: UserPrincipal, method: string, from: From): Promise<void> {
    await writeAudit(this.#deps.db, {
      teamId,
      actor: personActor({ id, email }, from),
      action: 'session.confirm',
      resource: { type: 'user', id },
      scope: 'admin',
      outcome: 'failure',
      details: { method },
    })
  }
}
