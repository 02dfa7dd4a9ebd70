import { AppError, errorText, type Logger } from '@wrenn/base'
import type { ChangePasswordInput, Me, SignUpInput } from '@wrenn/protocol'
import type { SignUpRule } from '../../config.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { addEmailToken, dropEmailTokens, type SignUpWish, useEmailToken } from '../../store/email-tokens.js'
import { addMember, findMembership, unownedFirstTeam } from '../../store/members.js'
import type { UserRow } from '../../store/schema.js'
import { revokeSessions } from '../../store/sessions.js'
import { addUser, changeUser, countActive, findUser, findUserByEmail, lockPeople } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import { type From, PLATFORM_TEAM_ID, personActor } from './from.js'
import type { Passwords } from './passwords.js'
import type { Opened, Sessions } from './sessions.js'
import { foundTeam } from './teams.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf, newCode } from './tokens.js'

const ACTIVATION_SEC = 30 * 60
const RESET_SEC = 15 * 60
const MAX_PENDING = 100

/** What is sent to people; each leaves with the commit of its transaction. */
export interface PeopleMailer {
  send(tx: Db, mail: PeopleMail): Promise<void>
}

type PeopleMail =
  | {
      readonly kind: 'activation'
      readonly to: string
      readonly name: string
      readonly token: string
      readonly expiresAt: string
    }
  | {
      readonly kind: 'password-reset'
      readonly to: string
      readonly name: string
      readonly token: string
      readonly expiresAt: string
    }
  | { readonly kind: 'already-registered'; readonly to: string; readonly name: string }
  | { readonly kind: 'password-changed'; readonly to: string; readonly name: string; readonly at: string }

interface AccountsDeps {
  readonly db: Db
  readonly mailer: PeopleMailer
  readonly passwords: Passwords
  readonly sessions: Sessions
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
    await this.#refuseSignUp(email)
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
      const firstTeam = isFirst ? await unownedFirstTeam(tx) : undefined
      if (firstTeam !== undefined) await addMember(tx, firstTeam, user.id, 'owner')
      const membership = (await findMembership(tx, user.id)) ?? (await foundTeam(tx, user))
      await this.#entry(tx, 'user.activate', active, from, membership.teamId)
      return await sessions.open(tx, active, from)
    })
  }

  /**
   * @throws AppError `unauthorized`, `limit_exceeded`, and to who knows the password `account_not_activated`, `account_disabled`
   */
  async login(email: string, password: string, from: From): Promise<Opened> {
    const { db, passwords, sessions, throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('loginPlace', place)
    await throttle.count('login', email, place)
    const found = await findUserByEmail(db, email)
    const user = found?.deleted_at === null ? found : undefined
    const isRight = await passwords.verify(user?.password_hash, password)
    if (!isRight || user === undefined) {
      await this.#failed(email, user, from)
      throw new AppError('unauthorized', 'The address or the password is wrong.')
    }
    await throttle.forget('login', email, place)
    await throttle.uncount('loginPlace', place)
    return await db.transaction().execute(async (tx) => {
      // What has changed while the password was checked counts.
      const now = await findUser(tx, user.id)
      if (now?.status !== 'active') throw refusal(now)
      if (now.password_hash !== user.password_hash) throw new AppError('unauthorized', 'The password was changed.')
      return await sessions.open(tx, now, from)
    })
  }

  /** Takes as long for an address that nobody has. */
  async #failed(email: string, user: UserRow | undefined, from: From): Promise<void> {
    const { db } = this.#deps
    const membership = await findMembership(db, user?.id ?? '')
    await writeAudit(db, {
      teamId: membership?.teamId ?? PLATFORM_TEAM_ID,
      actor: personActor({ id: user?.id ?? '', email }, from),
      action: 'session.login',
      resource: { type: 'user', id: user?.id ?? '' },
      scope: 'admin',
      outcome: 'failure',
    })
  }

  /** One's own account, as it is in the team that the session works in. */
  async me({ id, teamId, role }: UserPrincipal): Promise<Me> {
    const user = await findUser(this.#deps.db, id)
    if (user === undefined) throw new AppError('unauthorized', 'The account is gone.')
    return {
      id: user.id,
      name: user.name,
      email: user.email,
      has_password: user.password_hash !== null,
      providers: [],
      is_admin: user.is_admin,
      team_id: teamId,
      role,
    }
  }

  async rename({ id, teamId }: UserPrincipal, name: string, from: From): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      const user = await changeUser(tx, id, { name })
      if (user !== undefined) await this.#entry(tx, 'user.update', user, from, teamId)
    })
    this.#deps.onChange()
  }

  /** Every other session ends. @throws AppError `wrong_password`, `invalid_request`, `limit_exceeded` */
  async changePassword(principal: UserPrincipal, input: ChangePasswordInput, from: From): Promise<void> {
    const { db, passwords, throttle } = this.#deps
    const { current_password: current, new_password: chosen, confirm_password: again } = input
    if (again !== undefined && again !== chosen) {
      throw new AppError('invalid_request', 'confirm_password: is another one than new_password')
    }
    const place = placeOf(from.ip)
    await throttle.count('login', principal.email, place)
    const user = await findUser(db, principal.id)
    if (!(await passwords.verify(user?.password_hash, current))) {
      throw new AppError('wrong_password', 'current_password: is not the password of this account')
    }
    await throttle.forget('login', principal.email, place)
    const hash = await passwords.hash(chosen)
    await db.transaction().execute((tx) => this.#setPassword(tx, principal.id, hash, from, principal.sessionId))
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

  async #refuseSignUp(email: string): Promise<void> {
    const { signUp, db } = this.#deps
    if (signUp === 'open') return
    if (signUp === 'closed') {
      if ((await countActive(db)).all > 0) throw signUpClosed()
      return
    }
    const domain = email.slice(email.lastIndexOf('@') + 1)
    if (!signUp.includes(domain)) throw new AppError('forbidden', 'Nobody can sign up here with such an address.')
  }

  async #entry(tx: Db, action: string, user: UserRow, from: From, teamId?: string): Promise<void> {
    await writeAudit(tx, {
      teamId: teamId ?? (await findMembership(tx, user.id))?.teamId ?? PLATFORM_TEAM_ID,
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

function signUpClosed(): AppError {
  return new AppError('forbidden', 'Sign-up is closed; an admin of this platform can make you an account.')
}

/** Only to who knows the password. */
function refusal(user: UserRow | undefined): AppError {
  if (user?.status === 'pending') return new AppError('account_not_activated', 'Follow the link in the mail first.')
  return new AppError('account_disabled', 'This account was disabled.')
}
