import { AppError } from '@wrenn/base'
import type { PasskeyAssertion } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findPasskey } from '../../store/factors.js'
import { findUser, lockUser } from '../../store/users.js'
import { type From, personActor } from './from.js'
import { homeTeamOf } from './home-team.js'
import type { LoginEnd, LoginWish } from './login-end.js'
import type { Passkeys } from './passkeys.js'
import type { Opened } from './sessions.js'
import { placeOf, type Throttle } from './throttle.js'

interface PasskeyLoginsDeps {
  readonly db: Db
  readonly loginEnd: LoginEnd
  readonly passkeys: Passkeys
  readonly throttle: Throttle
}

/** Logins with a passkey alone. It is two factors by itself: somebody has it, and it has made sure that they are its owner. */
export class PasskeyLogins {
  readonly #deps: PasskeyLoginsDeps

  constructor(deps: PasskeyLoginsDeps) {
    this.#deps = deps
  }

  /** What any passkey of this platform is asked to sign. @throws AppError `limit_exceeded`, `not_supported` */
  async options(from: From) {
    const { passkeys, throttle } = this.#deps
    await throttle.count('passkeyPlace', placeOf(from.ip))
    return await passkeys.requestOptions({ purpose: 'login' })
  }

  /** @throws AppError `unauthorized`, `limit_exceeded`, `not_supported`, and what the end of a login throws */
  async finish(assertion: PasskeyAssertion, from: From, wish: LoginWish): Promise<Opened> {
    const { db, loginEnd, passkeys, throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('loginPlace', place)
    const signed = await passkeys.verify(assertion, { purpose: 'login' })
    if (signed === undefined) {
      await this.#failed(assertion.id, from)
      throw notRight()
    }
    await throttle.uncount('loginPlace', place)
    return await db.transaction().execute(async (tx) => {
      const user = await lockUser(tx, signed.userId)
      if (!(await passkeys.record(tx, signed))) throw notRight()
      return await loginEnd.open(tx, user, from, wish)
    })
  }

  async #failed(passkeyId: string, from: From): Promise<void> {
    const { db } = this.#deps
    const passkey = await findPasskey(db, passkeyId)
    const user = passkey && (await findUser(db, passkey.user_id))
    await writeAudit(db, {
      teamId: await homeTeamOf(db, user?.id),
      actor: personActor(user ?? { id: '', email: 'a passkey' }, from),
      action: 'session.login',
      resource: { type: 'user', id: user?.id ?? '' },
      scope: 'admin',
      outcome: 'failure',
      details: { method: 'passkey' },
    })
  }
}

function notRight(): AppError {
  return new AppError('unauthorized', 'No account here has this passkey, or it did not sign what it was asked to.')
}
