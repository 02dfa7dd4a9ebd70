import { AppError, errorText, type Logger } from '@wrenn/base'
import type { ChangePasswordInput, Me, SignUpInput } from '@wrenn/protocol'
import type { SignUpRule } from '../../config.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { addEmailToken, dropEmailTokens, type SignUpWish, useEmailToken } from '../../store/email-tokens.js'
import { dropLoginStepsOf } from '../../store/login-steps.js'
import { listProvidersOf } from '../../store/oauth-identities.js'
import type { UserRow } from '../../store/schema.js'
import { revokeSessions } from '../../store/sessions.js'
import { dropSetUpCode } from '../../store/set-up-codes.js'
import { addUser, changeUser, countActive, findUser, findUserByEmail, lockPeople, lockUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import type { Confirmations } from './confirmations.js'
import { type From, personActor } from './from.js'
import { homeTeamOf } from './home-team.js'
import type { LoginEnd, LoginResult, LoginWish } from './login-end.js'
import type { Passwords } from './passwords.js'
import type { PeopleMail, PeopleMailer } from './people-mail.js'
import type { Opened, Sessions } from './sessions.js'
import { refuseSignUp, signUpClosed } from './sign-up-rule.js'
import { findOrFoundTeam } from './teams.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf, newCode } from './tokens.js'

const ACTIVATION_SEC = 30 * 60
const RESET_SEC = 15 * 60
const MAX_PENDING = 100

interface AccountsDeps {
  readonly db: Db
  readonly mailer: PeopleMailer
  readonly passwords: Passwords
  readonly confirmations: Pick<Confirmations, 'require'>
  readonly sessions: Sessions
  readonly loginEnd: LoginEnd
  readonly throttle: Throttle
  readonly signUp: SignUpRule
  readonly logger: Logger
  /** Called when sessions may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** What people do with their own accounts. No answer, and no answer's time, tells whether an address has one. */
export class Accounts {
  readonly #deps: AccountsDeps
  /** What goes on after its answer. */
  readonly #pending = new Set<Promise<void>>()

  constructor(deps: AccountsDeps) {
    this.#deps = deps
  }

  /** Waits for what was answered already. */
  async settle(): Promise<void> {
    await Promise.all(this.#pending)
  }

  /**
   * Makes a pending account and has the link sent that activates it, after the answer. Who has an account is told so by mail. Several may sign up
   * with one address: each link gives the account the password of its own sign-up, so nobody can put theirs into the account of who follows another.
   * @throws AppError `forbidden` where nobody may sign up, or not with such an address; `limit_exceeded`
   */
  async signUp({ email, password, name }: SignUpInput, from: From): Promise<void> {
    const { throttle, passwords } = this.#deps
    await throttle.count('signupPlace', placeOf(from.ip))
    await throttle.count('signup', email, placeOf(from.ip))
    await refuseSignUp(this.#deps.db, this.#deps.signUp, email)
    const passwordHash = await passwords.hash(password)
    this.#later('account.sign_up_failed', (tx) => this.#signUp(tx, { email, passwordHash, name }, from))
  }

  async #signUp(tx: Db, wanted: { email: string; passwordHash: string; name: string }, from: From): Promise<void> {
    await lockPeople(tx)
    const there = await findUserByEmail(tx, wanted.email)
    if (there?.status === 'active' && there.deleted_at === null) {
      await this.#mail(tx, there, { kind: 'already-registered', name: there.name })
      return
    }
    // One without a password is waiting for the link that an admin has.
    if (there !== undefined && (there.status !== 'pending' || there.password_hash === null)) return
    if (!(await this.#deps.throttle.allows(tx, 'mailbox', wanted.email))) return
    const user = there ?? (await addUser(tx, wanted))
    await this.#entry(tx, 'user.sign_up', user, from)
    const token = newCode()
    const end = await addEmailToken(tx, {
      digest: digestOf(token),
      kind: 'activation',
      userId: user.id,
      lifeSec: ACTIVATION_SEC,
      wish: wanted,
    })
    await this.#deps.mailer.send(tx, {
      kind: 'activation',
      to: user.email,
      name: user.name,
      token,
      expiresAt: end.toISOString(),
    })
  }

  /**
   * Makes an account active and logs it in. The first one becomes admin of the platform and owner of the team that was there before.
   * @throws AppError `invalid_token`, `forbidden` when sign-up was closed meanwhile, `invalid_request`, `limit_exceeded`
   */
  async activate(token: string, password: string | undefined, from: From): Promise<Opened> {
    const { db, passwords, sessions, throttle } = this.#deps
    await throttle.count('tokenPlace', placeOf(from.ip))
    const chosen = password === undefined ? undefined : await passwords.hash(password)
    return await db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      const { user, wish } = await this.#userOf(tx, token, 'activation')
      if (user.status !== 'pending') throw invalidToken()
      const isFirst = (await countActive(tx)).all === 0
      const byAdmin = user.password_hash === null
      if (!(isFirst || byAdmin) && this.#deps.signUp === 'closed') throw signUpClosed()
      if (byAdmin && chosen === undefined) {
        throw new AppError('invalid_request', 'password: this account has none yet, so choose one')
      }
      const active = await changeUser(tx, user.id, {
        status: 'active',
        ...(byAdmin ? { password_hash: chosen } : wishedFor(wish)),
        ...(isFirst ? { is_admin: true } : {}),
      })
      if (active === undefined) throw invalidToken()
      await dropEmailTokens(tx, user.id, 'activation')
      if (isFirst) await dropSetUpCode(tx)
      const { teamId } = await findOrFoundTeam(tx, active, isFirst)
      await this.#entry(tx, 'user.activate', active, from, teamId)
      return await sessions.open(tx, active, from)
    })
  }

  /**
   * @throws AppError `unauthorized`, `limit_exceeded`, and to who knows the password `account_not_activated`, `account_disabled`, `deletion_pending`
   */
  async login(email: string, password: string, from: From, wish: LoginWish = {}): Promise<LoginResult> {
    const { db, passwords, loginEnd, throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('loginPlace', place)
    await throttle.count('login', email, place)
    const user = await findUserByEmail(db, email)
    const isRight = await passwords.verify(user?.password_hash, password)
    if (!isRight || user === undefined) {
      await this.#failed(email, user, from)
      throw new AppError('unauthorized', 'The address or the password is wrong.')
    }
    await throttle.forget('login', email, place)
    await throttle.uncount('loginPlace', place)
    return await db.transaction().execute(async (tx) => {
      // What has changed while the password was checked counts.
      const now = await lockUser(tx, user.id)
      if (now?.password_hash !== user.password_hash) throw new AppError('unauthorized', 'The password was changed.')
      return await loginEnd.finish(tx, now, from, wish)
    })
  }

  /** Takes as long for an address that nobody has. */
  async #failed(email: string, user: UserRow | undefined, from: From): Promise<void> {
    const { db } = this.#deps
    await writeAudit(db, {
      teamId: await homeTeamOf(db, user?.id),
      actor: personActor({ id: user?.id ?? '', email }, from),
      action: 'session.login',
      resource: { type: 'user', id: user?.id ?? '' },
      scope: 'admin',
      outcome: 'failure',
    })
  }

  /** One's own account, as it is in the team that the session works in; what the platform can do is not known here. */
  async me({ id, teamId, role, permissions }: UserPrincipal): Promise<Omit<Me, 'features'>> {
    const user = await findUser(this.#deps.db, id)
    if (user === undefined) throw new AppError('unauthorized', 'The account is gone.')
    return {
      id: user.id,
      name: user.name,
      email: user.email,
      has_password: user.password_hash !== null,
      providers: await listProvidersOf(this.#deps.db, id),
      is_admin: user.is_admin,
      team_id: teamId,
      role,
      permissions: [...permissions].sort(),
    }
  }

  async rename({ id, teamId }: UserPrincipal, name: string, from: From): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      const user = await changeUser(tx, id, { name })
      if (user !== undefined) await this.#entry(tx, 'user.update', user, from, teamId)
    })
    this.#deps.onChange()
  }

  /**
   * Every other session ends. An account that has no password yet gets one.
   * @throws AppError `wrong_password`, `confirmation_needed`, `invalid_request`, `limit_exceeded`
   */
  async changePassword(principal: UserPrincipal, input: ChangePasswordInput, from: From): Promise<void> {
    const { db, confirmations, passwords, throttle } = this.#deps
    const { current_password: current, new_password: chosen, confirm_password: again } = input
    if (again !== undefined && again !== chosen) {
      throw new AppError('invalid_request', 'confirm_password: is another one than new_password')
    }
    const user = await findUser(db, principal.id)
    const before = user?.password_hash ?? null
    if (before === null) {
      if (again === undefined) throw new AppError('invalid_request', 'confirm_password: say the new password twice')
    } else {
      const place = placeOf(from.ip)
      await throttle.count('login', principal.email, place)
      if (!(await passwords.verify(before, current ?? ''))) {
        throw new AppError('wrong_password', 'current_password: is not the password of this account')
      }
      await throttle.forget('login', principal.email, place)
    }
    const hash = await passwords.hash(chosen)
    await db.transaction().execute(async (tx) => {
      // Of two that set the first one, the later one would need it.
      const now = await lockUser(tx, principal.id)
      if (before === null) await confirmations.require(tx, principal)
      if (now?.password_hash !== before) throw new AppError('wrong_password', 'The password was changed meanwhile.')
      await this.#setPassword(tx, principal.id, hash, from, principal.sessionId)
    })
    this.#deps.onChange()
  }

  /** Has a link sent after the answer, to who has an active account. @throws AppError `limit_exceeded` */
  async requestReset(email: string, from: From): Promise<void> {
    const { throttle } = this.#deps
    await throttle.count('resetPlace', placeOf(from.ip))
    await throttle.count('reset', email, placeOf(from.ip))
    this.#later('account.reset_failed', async (tx) => {
      const user = await findUserByEmail(tx, email)
      if (user?.status !== 'active' || user.deleted_at !== null) return
      const token = newCode()
      const end = await addEmailToken(tx, {
        digest: digestOf(token),
        kind: 'password-reset',
        userId: user.id,
        lifeSec: RESET_SEC,
      })
      await this.#entry(tx, 'user.request_reset', user, from)
      await this.#mail(tx, user, { kind: 'password-reset', name: user.name, token, expiresAt: end.toISOString() })
    })
  }

  /** Every session ends. @throws AppError `invalid_token`, `limit_exceeded` */
  async confirmReset(token: string, password: string, from: From): Promise<void> {
    const { db, passwords, throttle } = this.#deps
    await throttle.count('tokenPlace', placeOf(from.ip))
    const hash = await passwords.hash(password)
    await db.transaction().execute(async (tx) => {
      const { user } = await this.#userOf(tx, token, 'password-reset')
      if (user.status !== 'active') throw invalidToken()
      await this.#setPassword(tx, user.id, hash, from, undefined)
    })
    this.#deps.onChange()
  }

  async #setPassword(tx: Db, id: string, hash: string, from: From, keptSession: string | undefined): Promise<void> {
    const user = await changeUser(tx, id, { password_hash: hash })
    if (user === undefined) throw new AppError('unauthorized', 'The account is gone.')
    await revokeSessions(tx, { userId: id, except: keptSession })
    await dropLoginStepsOf(tx, id)
    await dropEmailTokens(tx, id, 'password-reset')
    await this.#entry(tx, 'user.change_password', user, from)
    const { mailer } = this.#deps
    await mailer.send(tx, { kind: 'password-changed', to: user.email, name: user.name, at: new Date().toISOString() })
  }

  async #userOf(
    tx: Db,
    token: string,
    kind: 'activation' | 'password-reset',
  ): Promise<{ readonly user: UserRow; readonly wish: SignUpWish | undefined }> {
    const used = await useEmailToken(tx, digestOf(token), kind)
    const user = used && (await findUser(tx, used.userId))
    if (user === undefined || user.deleted_at !== null) throw invalidToken()
    return { user, wish: used?.wish }
  }

  async #entry(tx: Db, action: string, user: UserRow, from: From, teamId?: string): Promise<void> {
    await writeAudit(tx, {
      teamId: teamId ?? (await homeTeamOf(tx, user.id)),
      actor: personActor(user, from),
      action,
      resource: { type: 'user', id: user.id },
      scope: 'admin',
    })
  }

  /** Nobody's mailbox is flooded, wherever it is asked for. */
  async #mail(tx: Db, { email }: UserRow, mail: WithoutTo<PeopleMail>): Promise<void> {
    const { throttle, mailer } = this.#deps
    if (await throttle.allows(tx, 'mailbox', email)) await mailer.send(tx, { ...mail, to: email })
  }

  #later(event: string, task: (tx: Db) => Promise<void>): void {
    const { db, logger } = this.#deps
    if (this.#pending.size >= MAX_PENDING) {
      throw new AppError('limit_exceeded', 'Too many mails are being asked for.', { details: { retryAfterSec: 5 } })
    }
    const running = db
      .transaction()
      .execute(task)
      .catch((error: unknown) => logger.error({ error: errorText(error) }, event))
      .finally(() => this.#pending.delete(running))
    this.#pending.add(running)
  }
}

type WithoutTo<Mail> = Mail extends unknown ? Omit<Mail, 'to'> : never

function wishedFor(wish: SignUpWish | undefined) {
  return wish === undefined ? {} : { name: wish.name, password_hash: wish.passwordHash }
}

function invalidToken(): AppError {
  return new AppError('invalid_token', 'The link is unknown, was used before, or is too old.')
}
