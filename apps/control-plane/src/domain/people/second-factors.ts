import { AppError } from '@wrenn/base'
import type { PasskeyAssertion, SecondFactorMethod } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findFactors, lockTotp, useRecoveryCode, useTotp } from '../../store/factors.js'
import { countFailure, dropLoginStep, findLoginStep, lockLoginStep } from '../../store/login-steps.js'
import type { LoginStepRow, UserRow } from '../../store/schema.js'
import { lockUser } from '../../store/users.js'
import type { Keyring } from '../secrets/index.js'
import { totpContext } from './factors.js'
import { type From, personActor } from './from.js'
import { homeTeamOf } from './home-team.js'
import type { LoginEnd } from './login-end.js'
import type { Passkeys, Signed } from './passkeys.js'
import type { PeopleMailer } from './people-mail.js'
import { recoveryDigest } from './recovery-codes.js'
import type { Opened } from './sessions.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf } from './tokens.js'
import { stepOf } from './totp.js'

/** Of one login; who fails more begins another, and is counted there too. */
const MAX_FAILURES = 5

/** What somebody proves with who they are; exactly one. */
export interface Proof {
  readonly code?: string | undefined
  readonly recovery_code?: string | undefined
  readonly passkey?: PasskeyAssertion | undefined
}

interface SecondFactorsDeps {
  readonly db: Db
  readonly keyring: Keyring
  readonly loginEnd: LoginEnd
  readonly mailer: PeopleMailer
  readonly passkeys: Passkeys
  readonly throttle: Throttle
}

/** The second half of logins to accounts that have more than a password. */
export class SecondFactors {
  readonly #deps: SecondFactorsDeps

  constructor(deps: SecondFactorsDeps) {
    this.#deps = deps
  }

  /** What a passkey is asked to sign for a login that waits. @throws AppError `login_expired`, `limit_exceeded`, `not_supported` */
  async passkeyOptions(token: string, from: From) {
    const { db, passkeys, throttle } = this.#deps
    await throttle.count('passkeyPlace', placeOf(from.ip))
    const step = await this.#find(digestOf(token), from)
    const { passkeys: known } = await findFactors(db, step.user_id)
    return await passkeys.requestOptions({ purpose: 'second-factor', boundTo: step.digest }, known)
  }

  /**
   * Ends the login that the token is of; it is good once. Wrong codes count for the account at this place, and for the account altogether.
   * @throws AppError `login_expired`, `unauthorized`, `limit_exceeded`, and what the end of a login throws
   */
  async finish(token: string, proof: Proof, from: From): Promise<Opened> {
    const { db, throttle, loginEnd, passkeys } = this.#deps
    const { digest, user_id: userId } = await this.#find(digestOf(token), from)
    const place = placeOf(from.ip)
    await throttle.count('secondFactor', userId, place)
    // Nothing else can be guessed: whoever guesses codes must not lock their owner out of the rest.
    if (proof.code !== undefined) await throttle.count('secondFactorAccount', userId)
    const ceremony = { purpose: 'second-factor', boundTo: digest } as const
    const signed = proof.passkey && (await passkeys.verify(proof.passkey, ceremony))
    const opened = await db.transaction().execute(async (tx) => {
      const user = await lockUser(tx, userId)
      const step = await lockLoginStep(tx, digest, MAX_FAILURES)
      if (user === undefined || step === undefined) throw isOver()
      if (!(await this.#isRight(tx, user, proof, signed))) {
        await countFailure(tx, digest)
        await this.#failed(tx, user, proof, from)
        return undefined
      }
      await dropLoginStep(tx, digest)
      const { restore, provider } = step
      return await loginEnd.open(tx, user, from, { restore, provider: provider ?? undefined })
    })
    if (opened === undefined) throw new AppError('unauthorized', 'This is not right, or was used before.')
    await throttle.forget('secondFactor', userId, place)
    if (proof.code !== undefined) await throttle.forget('secondFactorAccount', userId)
    return opened
  }

  async #find(digest: string, from: From): Promise<LoginStepRow> {
    const step = await findLoginStep(this.#deps.db, digest, MAX_FAILURES)
    if (step?.place === placeOf(from.ip)) return step
    await this.#deps.throttle.count('tokenPlace', placeOf(from.ip))
    throw isOver()
  }

  async #isRight(tx: Db, user: UserRow, proof: Proof, signed: Signed | undefined): Promise<boolean> {
    if (proof.passkey !== undefined) {
      return signed?.userId === user.id && (await this.#deps.passkeys.record(tx, signed))
    }
    if (proof.recovery_code !== undefined) return await this.#useRecoveryCode(tx, user, proof.recovery_code)
    return await this.#useCode(tx, user.id, proof.code ?? '')
  }

  /** A code is good once, also within its 30 s: whoever has looked over a shoulder comes too late. */
  async #useCode(tx: Db, userId: string, code: string): Promise<boolean> {
    const { keyring } = this.#deps
    const totp = await lockTotp(tx, userId)
    if (totp === undefined || totp.confirmed_at === null) return false
    const { text: secret, isCurrent } = keyring.open(totp.secret, totpContext(userId))
    const lastStep = stepOf(secret, code, Date.now())
    if (lastStep === undefined || lastStep <= totp.last_step) return false
    await useTotp(tx, userId, {
      lastStep,
      secret: isCurrent ? totp.secret : keyring.seal(secret, totpContext(userId)),
    })
    return true
  }

  async #useRecoveryCode(tx: Db, { id, email, name }: UserRow, code: string): Promise<boolean> {
    if (!(await useRecoveryCode(tx, id, recoveryDigest(code)))) return false
    const { recoveryCodes: left } = await findFactors(tx, id)
    const what = `a recovery code was used to sign in, ${left} are left`
    await this.#deps.mailer.send(tx, {
      kind: 'sign-in-changed',
      to: email,
      name,
      what,
      at: new Date().toISOString(),
    })
    return true
  }

  async #failed(tx: Db, user: UserRow, proof: Proof, from: From): Promise<void> {
    await writeAudit(tx, {
      teamId: await homeTeamOf(tx, user.id),
      actor: personActor(user, from),
      action: 'session.second_factor',
      resource: { type: 'user', id: user.id },
      scope: 'admin',
      outcome: 'failure',
      details: { method: methodOf(proof) },
    })
  }
}

function methodOf({ passkey, recovery_code }: Proof): SecondFactorMethod {
  if (passkey !== undefined) return 'passkey'
  return recovery_code === undefined ? 'totp' : 'recovery_code'
}

function isOver(): AppError {
  return new AppError('login_expired', 'This login was used, failed too often, took too long, or began elsewhere.')
}
