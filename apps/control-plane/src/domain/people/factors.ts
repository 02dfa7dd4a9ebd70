import { AppError } from '@wrenn/base'
import type {
  Factors as FactorsInfo,
  NewPasskeyInfo,
  Passkey,
  PasskeyAttestation,
  RecoveryCodes,
  TotpEnrolment,
} from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import {
  addPasskey,
  dropFactors,
  dropPasskey,
  dropTotp,
  type Factors as Found,
  findFactors,
  lockTotp,
  putRecoveryCodes,
  putTotp,
  renamePasskey,
  useTotp,
} from '../../store/factors.js'
import type { Actor, PasskeyRow, UserRow } from '../../store/schema.js'
import { revokeSessions } from '../../store/sessions.js'
import { lockUser } from '../../store/users.js'
import type { Principal, UserPrincipal } from '../accounts/index.js'
import type { Keyring } from '../secrets/index.js'
import type { Confirmations } from './confirmations.js'
import { type From, personActor } from './from.js'
import type { LoginMethods } from './login-methods.js'
import type { Passkeys } from './passkeys.js'
import type { PeopleMailer } from './people-mail.js'
import { newRecoveryCodes, recoveryDigest } from './recovery-codes.js'
import type { Throttle } from './throttle.js'
import { newTotpSecret, stepOf, totpUri } from './totp.js'

const MAX_PASSKEYS = 20

interface FactorsDeps {
  readonly db: Db
  readonly keyring: Keyring
  readonly confirmations: Pick<Confirmations, 'require'>
  readonly loginMethods: LoginMethods
  readonly mailer: PeopleMailer
  readonly passkeys: Passkeys
  readonly throttle: Throttle
  /** Called when sessions may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** What the secret of somebody's authenticator app is bound to: it opens in no other row. */
export function totpContext(userId: string): string {
  return `totp:${userId}`
}

/**
 * What people have beside a password. Who adds something ends all their other sessions, which began with less; all of it needs a proof of the last
 * minutes that it is them, and is told to them by mail.
 */
export class Factors {
  readonly #deps: FactorsDeps

  constructor(deps: FactorsDeps) {
    this.#deps = deps
  }

  async list({ id }: UserPrincipal): Promise<FactorsInfo> {
    const { totpSince, passkeys, recoveryCodes } = await findFactors(this.#deps.db, id)
    return {
      ...(totpSince === undefined ? {} : { totp_since: totpSince.toISOString() }),
      passkeys: passkeys.map(toPasskey),
      recovery_codes_left: recoveryCodes,
    }
  }

  /**
   * A new secret for an authenticator app, shown once; it counts for nothing until a code of it is confirmed.
   * @throws AppError `confirmation_needed`, `conflict` when there is one, `not_supported` without a key to keep it with
   */
  async beginTotp(principal: UserPrincipal): Promise<TotpEnrolment> {
    const { db, confirmations, keyring } = this.#deps
    const secret = newTotpSecret()
    const sealed = keyring.seal(secret, totpContext(principal.id))
    await db.transaction().execute(async (tx) => {
      await lockUser(tx, principal.id)
      await confirmations.require(tx, principal)
      if ((await findFactors(tx, principal.id)).totpSince !== undefined) {
        throw new AppError('conflict', 'You have an authenticator app already; remove it first.')
      }
      await putTotp(tx, principal.id, sealed)
    })
    return { secret, uri: totpUri(secret, principal.email) }
  }

  /** @throws AppError `confirmation_needed`, `conflict` when nothing waits, `wrong_code`, `limit_exceeded` */
  async confirmTotp(principal: UserPrincipal, code: string, from: From): Promise<RecoveryCodes> {
    const { db, throttle, keyring, confirmations } = this.#deps
    // Who has no proof must not use up the tries of the account's logins.
    await confirmations.require(db, principal)
    await throttle.count('secondFactorAccount', principal.id)
    const codes = await this.#add(principal, from, 'an authenticator app was added', async (tx, { id }) => {
      const totp = await lockTotp(tx, id)
      if (totp === undefined || totp.confirmed_at !== null) {
        throw new AppError('conflict', 'No authenticator app waits for its first code; begin anew.')
      }
      const lastStep = stepOf(keyring.open(totp.secret, totpContext(id)).text, code, Date.now())
      if (lastStep === undefined) {
        throw new AppError('wrong_code', 'code: is not what the app shows now; is the clock of the device right?')
      }
      await useTotp(tx, id, { lastStep, secret: totp.secret, confirm: true })
      return { action: 'user.add_totp' }
    })
    await throttle.forget('secondFactorAccount', principal.id)
    return codes
  }

  /** @throws AppError `confirmation_needed`, `not_found` */
  async removeTotp(principal: UserPrincipal, from: From): Promise<void> {
    await this.#change(principal, from, 'the authenticator app was removed', async (tx, { id }) => {
      if (!(await dropTotp(tx, id))) throw new AppError('not_found', 'You have no authenticator app.')
      await dropUselessCodes(tx, id)
      return { action: 'user.remove_totp' }
    })
  }

  /** Ten others in the place of those that there were. @throws AppError `confirmation_needed`, `conflict` for who has no factor */
  async newRecoveryCodes(principal: UserPrincipal, from: From): Promise<RecoveryCodes> {
    const codes = newRecoveryCodes()
    await this.#change(principal, from, 'new recovery codes were made', async (tx, { id }) => {
      if (!hasFactor(await findFactors(tx, id))) {
        throw new AppError('conflict', 'Recovery codes are for who has an authenticator app or a passkey.')
      }
      await putRecoveryCodes(tx, id, codes.map(recoveryDigest))
      return { action: 'user.new_recovery_codes' }
    })
    return { recovery_codes: codes }
  }

  /** What a passkey is made with. @throws AppError `confirmation_needed`, `limit_exceeded`, `not_supported` */
  async passkeyOptions(principal: UserPrincipal) {
    const { db, confirmations, passkeys } = this.#deps
    await confirmations.require(db, principal)
    const { passkeys: known } = await findFactors(db, principal.id)
    refuseMany(known)
    return await passkeys.creationOptions(principal, known)
  }

  /** @throws AppError `confirmation_needed`, `invalid_request`, `conflict`, `limit_exceeded`, `not_supported` */
  async addPasskey(
    principal: UserPrincipal,
    { name, credential }: { readonly name: string; readonly credential: PasskeyAttestation },
    from: From,
  ): Promise<NewPasskeyInfo> {
    const made = await this.#deps.passkeys.verifyNew(credential, principal)
    let passkey: PasskeyRow | undefined
    const codes = await this.#add(principal, from, `the passkey ${name} was added`, async (tx, { id }) => {
      refuseMany((await findFactors(tx, id)).passkeys)
      passkey = await addPasskey(tx, { ...made, userId: id, name })
      if (passkey === undefined) throw new AppError('conflict', 'This passkey is here already.')
      return { action: 'user.add_passkey', details: { name } }
    })
    if (passkey === undefined) throw new Error('a passkey was added and is not there')
    return { ...toPasskey(passkey), ...codes }
  }

  /** @throws AppError `not_found` */
  async renamePasskey(
    { id: userId, teamId, email }: UserPrincipal,
    id: string,
    name: string,
    from: From,
  ): Promise<Passkey> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      const renamed = await renamePasskey(tx, userId, id, name)
      if (renamed === undefined) throw noPasskey()
      await writeAudit(tx, {
        teamId,
        actor: personActor({ id: userId, email }, from),
        action: 'user.rename_passkey',
        resource: { type: 'user', id: userId },
        scope: 'admin',
        details: { name },
      })
      return toPasskey(renamed)
    })
  }

  /** @throws AppError `confirmation_needed`, `not_found`, `last_login_method` */
  async removePasskey(principal: UserPrincipal, id: string, from: From): Promise<void> {
    await this.#change(principal, from, 'a passkey was removed', async (tx, user) => {
      const removed = await dropPasskey(tx, user.id, id)
      if (removed === undefined) throw noPasskey()
      await this.#deps.loginMethods.requireOne(tx, user)
      await dropUselessCodes(tx, user.id)
      return { action: 'user.remove_passkey', details: { name: removed.name } }
    })
  }

  /**
   * For admins of the platform, when somebody has lost everything but the password. Their own they remove as everybody does, with a proof.
   * @throws AppError `user_not_found`, `conflict`
   */
  async removeAll({ id: asker, teamId }: Principal, id: string, actor: Actor): Promise<void> {
    const { db } = this.#deps
    if (id === asker) throw new AppError('conflict', 'Your own factors are removed in your settings, with a proof.')
    await db.transaction().execute(async (tx) => {
      const user = await lockUser(tx, id)
      if (user === undefined || user.erased_at !== null) {
        throw new AppError('user_not_found', `There is no account ${id}.`)
      }
      const isNothing = !hasFactor(await findFactors(tx, id))
      await dropFactors(tx, id)
      if (isNothing) return
      await writeAudit(tx, {
        teamId,
        actor,
        action: 'user.remove_factors',
        resource: { type: 'user', id },
        scope: 'admin',
      })
      await this.#tell(tx, user, 'an admin of the platform removed your authenticator app and your passkeys')
    })
  }

  /** The first factor comes with recovery codes. */
  async #add(principal: UserPrincipal, from: From, what: string, add: Change): Promise<RecoveryCodes> {
    let codes: string[] | undefined
    await this.#change(principal, from, what, async (tx, user) => {
      const isFirst = !hasFactor(await findFactors(tx, user.id))
      const done = await add(tx, user)
      if (isFirst) {
        codes = newRecoveryCodes()
        await putRecoveryCodes(tx, user.id, codes.map(recoveryDigest))
      }
      await revokeSessions(tx, { userId: user.id, except: principal.sessionId })
      return done
    })
    this.#deps.onChange()
    return codes === undefined ? {} : { recovery_codes: codes }
  }

  async #change(principal: UserPrincipal, from: From, what: string, change: Change): Promise<void> {
    const { db, confirmations } = this.#deps
    await db.transaction().execute(async (tx) => {
      const user = await lockUser(tx, principal.id)
      if (user === undefined) throw new AppError('unauthorized', 'The account is gone.')
      // After the lock: whoever ends the session holds it.
      await confirmations.require(tx, principal)
      const { action, details = {} } = await change(tx, user)
      await writeAudit(tx, {
        teamId: principal.teamId,
        actor: personActor(user, from),
        action,
        resource: { type: 'user', id: user.id },
        scope: 'admin',
        details,
      })
      await this.#tell(tx, user, what)
    })
  }

  async #tell(tx: Db, { email: to, name }: UserRow, what: string): Promise<void> {
    await this.#deps.mailer.send(tx, { kind: 'sign-in-changed', to, name, what, at: new Date().toISOString() })
  }
}

/** What is written about a change. */
interface Done {
  readonly action: string
  readonly details?: Readonly<Record<string, string>>
}
type Change = (tx: Db, user: UserRow) => Promise<Done>

function hasFactor({ totpSince, passkeys }: Found): boolean {
  return totpSince !== undefined || passkeys.length > 0
}

/** Codes stand in for a factor; without one they would be a second password. */
async function dropUselessCodes(tx: Db, userId: string): Promise<void> {
  if (!hasFactor(await findFactors(tx, userId))) await dropFactors(tx, userId)
}

/** @throws AppError `limit_exceeded` */
function refuseMany(passkeys: readonly PasskeyRow[]): void {
  if (passkeys.length < MAX_PASSKEYS) return
  throw new AppError('limit_exceeded', `You have ${passkeys.length} passkeys, as many as one may; remove some.`)
}

function noPasskey(): AppError {
  return new AppError('not_found', 'You have no such passkey.')
}

function toPasskey({ id, name, backed_up, created_at, last_used_at }: PasskeyRow): Passkey {
  return {
    id,
    name,
    synced: backed_up,
    created_at: created_at.toISOString(),
    ...(last_used_at === null ? {} : { last_used: last_used_at.toISOString() }),
  }
}
