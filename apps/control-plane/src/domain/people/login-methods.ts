import { AppError } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { findFactors } from '../../store/factors.js'
import { listProvidersOf } from '../../store/oauth-identities.js'
import type { PasskeyRow, UserRow } from '../../store/schema.js'
import type { Passkeys } from './passkeys.js'

interface LoginMethodsDeps {
  /** Ids of the providers that can be signed in with. */
  readonly providers: readonly string[]
  readonly passkeys: Pick<Passkeys, 'areUsable'>
}

/** The ways in which people sign in: a password, a provider, or a passkey by itself. An authenticator app is none; it follows one. */
export class LoginMethods {
  readonly #deps: LoginMethodsDeps

  constructor(deps: LoginMethodsDeps) {
    this.#deps = deps
  }

  /**
   * To be called after one was taken away, in its transaction, while the account is held.
   * @throws AppError `last_login_method` when none is left
   */
  async requireOne(tx: Db, { id, password_hash }: UserRow): Promise<void> {
    if (password_hash !== null) return
    const { providers, passkeys } = this.#deps
    if ((await listProvidersOf(tx, id)).some((each) => providers.includes(each))) return
    if (passkeys.areUsable && (await findFactors(tx, id)).passkeys.some(signsInAlone)) return
    throw new AppError('last_login_method', 'This is the only way in which you can sign in.')
  }
}

/** Those of devices and of managers that sync make sure of their owner; a key to plug in may have neither PIN nor room for a name. */
function signsInAlone({ backed_up, transports }: PasskeyRow): boolean {
  return backed_up || transports.includes('internal') || transports.includes('hybrid')
}
