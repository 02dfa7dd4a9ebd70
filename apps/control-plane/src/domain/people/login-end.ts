import { AppError } from '@wrenn/base'
import type { SecondFactorMethod, SecondFactorNeeded } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { type Factors, findFactors } from '../../store/factors.js'
import { addLoginStep } from '../../store/login-steps.js'
import type { UserRow } from '../../store/schema.js'
import type { AccountEnds } from './account-ends.js'
import type { From } from './from.js'
import type { Opened, Sessions } from './sessions.js'
import { placeOf } from './throttle.js'
import { digestOf, newSecret } from './tokens.js'

const STEP_SEC = 5 * 60

/** What somebody wants who logs in. */
export interface LoginWish {
  /** Whether a deletion of the account, where one was asked for, is taken back. @default false */
  readonly restore?: boolean | undefined
  /** Who told whose it is; otherwise the platform knew by itself. */
  readonly provider?: string | undefined
}

/** A session, or what is still missing for one. */
export type LoginResult = Opened | SecondFactorNeeded

interface LoginEndDeps {
  readonly sessions: Pick<Sessions, 'open'>
  readonly accountEnds: Pick<AccountEnds, 'takeBack'>
}

/** How every login ends, whatever it was that proved who somebody is. */
export class LoginEnd {
  readonly #deps: LoginEndDeps

  constructor(deps: LoginEndDeps) {
    this.#deps = deps
  }

  /**
   * After one factor: a password, or the word of another platform. Who has a second one must prove that too, within 5 minutes and from the same place;
   * until then there is no session. In the caller's transaction, which holds the row of the account.
   * @throws AppError `account_not_activated`, `account_disabled`, `deletion_pending`
   */
  async finish(tx: Db, user: UserRow | undefined, from: From, wish: LoginWish = {}): Promise<LoginResult> {
    const active = admitted(user, wish)
    const methods = methodsOf(await findFactors(tx, active.id))
    if (methods.length === 0) return await this.open(tx, active, from, wish)
    const token = newSecret()
    const end = await addLoginStep(tx, {
      digest: digestOf(token),
      userId: active.id,
      place: placeOf(from.ip),
      restore: wish.restore ?? false,
      provider: wish.provider,
      lifeSec: STEP_SEC,
    })
    return { second_factor: { token, methods, expires_at: end.toISOString() } }
  }

  /**
   * After all that the account has. In the caller's transaction, which holds its row: what changes from here on ends this session too.
   * @throws as `finish`
   */
  async open(tx: Db, user: UserRow | undefined, from: From, wish: LoginWish = {}): Promise<Opened> {
    const { sessions, accountEnds } = this.#deps
    const active = admitted(user, wish)
    const kept = active.deleted_at === null ? active : await accountEnds.takeBack(tx, active, from)
    return await sessions.open(tx, kept, from, { provider: wish.provider })
  }
}

/** The best one first. Recovery codes are never all that somebody has. */
function methodsOf({ totpSince, passkeys, recoveryCodes }: Factors): SecondFactorMethod[] {
  const factors: SecondFactorMethod[] = [
    ...(passkeys.length === 0 ? [] : ['passkey' as const]),
    ...(totpSince === undefined ? [] : ['totp' as const]),
  ]
  return factors.length === 0 || recoveryCodes === 0 ? factors : [...factors, 'recovery_code']
}

/** Refusals are only for who has proved that the account is theirs. */
function admitted(user: UserRow | undefined, { restore = false }: LoginWish): UserRow {
  if (user?.status === 'pending') throw new AppError('account_not_activated', 'Follow the link in the mail first.')
  if (user?.status !== 'active') throw new AppError('account_disabled', 'This account was disabled.')
  if (user.deleted_at === null || restore) return user
  const at = user.erase_at?.toISOString()
  throw new AppError('deletion_pending', `This account is deleted on ${at?.slice(0, 10)}, as its owner asked.`, {
    details: { eraseAt: at },
  })
}
