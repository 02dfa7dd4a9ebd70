import type * as wire from '@wrenn/protocol'
import { meInfo, signedIn } from './convert.js'
import { AuthenticationError, type HalfLogin, SecondFactorNeededError } from './errors.js'
import type { PasskeyJson } from './factors.js'
import { Providers } from './providers.js'
import type { CallOptions, RequestOptions, Transport } from './transport.js'
import type { MeInfo, SignedIn } from './types.js'
import { delay } from './wait.js'

/** Who gets an account. */
export interface NewPerson {
  readonly email: string
  /** For people. */
  readonly name: string
  /** 8 to 1024 characters. */
  readonly password: string
}

/** How somebody logs in. */
export interface LoginOptions extends CallOptions {
  /** Takes back that the account was deleted, where that is still possible. @default false */
  readonly restore?: boolean
}

/** What a login is finished with: exactly one of these. */
export type SecondFactorProof =
  | { readonly code: string; readonly recoveryCode?: never; readonly passkey?: never }
  | { readonly recoveryCode: string; readonly code?: never; readonly passkey?: never }
  | { readonly passkey: PasskeyJson; readonly code?: never; readonly recoveryCode?: never }

/** A program's login that waits for a person. */
export interface DeviceLogin {
  /** The program's own; whoever has it gets the session. */
  readonly deviceCode: string
  /** What its person types. */
  readonly userCode: string
  /** Where they type it. */
  readonly verificationUri: string
  /** The same, with the code. */
  readonly verificationUriComplete: string
  readonly expiresAt: Date
  /** Between two questions. */
  readonly intervalMs: number
}

/** A program that waits for you. */
export interface WaitingDevice {
  /** What it says of itself. */
  readonly client: string
  /** Where it asks from. */
  readonly ip: string
  readonly createdAt: Date
  readonly expiresAt: Date
}

const PENDING = 202

/**
 * One's own account, and signing in to it. With the option `cookies` of the client the session is the page's; else its tokens are in
 * the answer, and a client that has `token` as its `apiKey` works with it.
 */
export class Account {
  /** What one can sign in with beside a password. */
  readonly providers: Providers
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
    this.providers = new Providers(transport)
  }

  /**
   * Begins a session.
   * @throws SecondFactorNeededError for who has more than a password; AuthenticationError for a wrong address or password; WrennError
   * `account_not_activated`, `account_disabled`, `deletion_pending`, `limit_exceeded`
   */
  async login(email: string, password: string, options: LoginOptions = {}): Promise<SignedIn> {
    const { restore, ...call } = options
    return await this.#signIn('/v1/auth/login', { email, password, restore }, call)
  }

  /**
   * Begins the session of a sign-in by a provider, in the browser that made it.
   * @param code of the address that it led to; good once, for a minute
   * @throws SecondFactorNeededError for who has more than that; WrennError `login_expired`, `account_disabled`, `limit_exceeded`, and `deletion_pending`, after which the code is still good
   */
  async loginWithCode(code: string, options: LoginOptions = {}): Promise<SignedIn> {
    const { restore, ...call } = options
    return await this.#signIn('/v1/auth/oauth/token', { code, restore }, call)
  }

  /**
   * Ends a login that `login` has begun and thrown SecondFactorNeededError for.
   * @throws AuthenticationError for what is not right, or was used before; WrennError `login_expired`, `limit_exceeded`
   */
  async finishLogin({ token }: HalfLogin, proof: SecondFactorProof, options: CallOptions = {}): Promise<SignedIn> {
    const { code, recoveryCode, passkey } = proof
    return await this.#signIn('/v1/auth/second-factor', { token, code, recovery_code: recoveryCode, passkey }, options)
  }

  /** What one's passkeys are asked to sign for that. @throws WrennError `login_expired`, `not_supported` */
  async secondFactorPasskeyOptions({ token }: HalfLogin, options: CallOptions = {}): Promise<PasskeyJson> {
    const request = { ...options, json: { token }, signsIn: true }
    return await this.#transport.json<PasskeyJson>('POST', '/v1/auth/second-factor/passkey', request)
  }

  /** What any passkey is asked to sign, to sign in without a password. @throws WrennError `not_supported`, `limit_exceeded` */
  async passkeyLoginOptions(options: CallOptions = {}): Promise<PasskeyJson> {
    const request = { ...options, signsIn: true }
    return await this.#transport.json<PasskeyJson>('POST', '/v1/auth/passkey/options', request)
  }

  /** Begins a session with a passkey that has signed these. @throws as `login`, but never for a second factor */
  async passkeyLogin(passkey: PasskeyJson, options: LoginOptions = {}): Promise<SignedIn> {
    const { restore, ...call } = options
    return await this.#signIn('/v1/auth/passkey', { passkey, restore }, call)
  }

  /**
   * Proves anew that this session is one's own, for 10 minutes.
   * @param proof a password, or a passkey that has signed what `confirmOptions` gave
   * @throws WrennError `wrong_password`, `wrong_code`, `limit_exceeded`
   */
  async confirm(proof: string | { readonly passkey: PasskeyJson }, options: CallOptions = {}): Promise<void> {
    const json = typeof proof === 'string' ? { password: proof } : proof
    await this.#transport.send('POST', '/v1/auth/confirm', { ...options, json })
  }

  /** What one's passkeys are asked to sign for that. @throws WrennError `conflict` without any */
  async confirmOptions(options: CallOptions = {}): Promise<PasskeyJson> {
    return await this.#transport.json<PasskeyJson>('POST', '/v1/auth/confirm/passkey', options)
  }

  /**
   * Deletes one's own account: all its sessions and keys end at once. Needs a login or `confirm` of the last 10 minutes.
   * @param email the account's address, typed by its owner
   * @returns until when a login with `restore` takes it back; then teams that nobody else is in end too
   * @throws WrennError `confirmation_needed`, `invalid_request`, `owns_team_with_members`, `conflict` for the last admin of the platform
   */
  async delete(email: string, options: CallOptions = {}): Promise<Date> {
    const request = { ...options, json: { confirmation: email } }
    const { erase_at } = await this.#transport.json<wire.Deletion>('DELETE', '/v1/me', request)
    return new Date(erase_at)
  }

  /** Ends this session. One that has ended already is no error. */
  async logout(options: CallOptions = {}): Promise<void> {
    try {
      await this.#transport.send('POST', '/v1/auth/logout', options)
    } catch (error) {
      if (!(error instanceof AuthenticationError && error.status === 401)) throw error
    }
  }

  /** The next tokens of a session. @param refreshToken of a client without cookies @throws AuthenticationError when the session is over */
  async refresh(refreshToken?: string, options: CallOptions = {}): Promise<SignedIn> {
    const json = refreshToken === undefined ? {} : { refresh_token: refreshToken }
    return await this.#begin('/v1/auth/refresh', { ...options, json })
  }

  /** Who the session is of, in which team it works, and what it may do there. */
  async me(options: CallOptions = {}): Promise<MeInfo> {
    return meInfo(await this.#transport.json<wire.Me>('GET', '/v1/me', options))
  }

  async rename(name: string, options: CallOptions = {}): Promise<MeInfo> {
    return meInfo(await this.#transport.json<wire.Me>('PATCH', '/v1/me', { ...options, json: { name } }))
  }

  /**
   * All other sessions end.
   * @param current `undefined` where the account has none yet; that needs a login of the last 10 minutes
   * @throws WrennError `wrong_password`, `confirmation_needed`, `limit_exceeded`
   */
  async changePassword(current: string | undefined, next: string, options: CallOptions = {}): Promise<void> {
    const json =
      current === undefined
        ? { new_password: next, confirm_password: next }
        : { current_password: current, new_password: next }
    await this.#transport.send('POST', '/v1/me/password', { ...options, json })
  }

  /**
   * Makes the first account of a platform with the code of the link that `wrenn up` printed, and begins a session.
   * @throws WrennError `invalid_token`, `conflict` once there is an account, `limit_exceeded`
   */
  async setUp(code: string, person: NewPerson, options: CallOptions = {}): Promise<SignedIn> {
    const { email, name, password } = person
    return await this.#signIn('/v1/auth/setup', { code, email, name, password }, options)
  }

  /** Has a mail sent with the link that activates the account, where people may sign up. @throws WrennError `forbidden`, `limit_exceeded` */
  async signUp(person: NewPerson, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', '/v1/auth/signup', { ...options, json: person, signsIn: true })
  }

  /** Activates an account with the code of its link and begins a session. @param password of an account that an admin has made @throws WrennError `invalid_token` */
  async activate(code: string, password?: string, options: CallOptions = {}): Promise<SignedIn> {
    return await this.#signIn('/v1/auth/activate', { token: code, password }, options)
  }

  /** Has a mail sent with a link to another password; says nothing of whether the address has an account. */
  async forgotPassword(email: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', '/v1/me/password/reset', { ...options, json: { email }, signsIn: true })
  }

  /** Sets another password with the code of that link; all sessions end. @throws WrennError `invalid_token` */
  async resetPassword(code: string, password: string, options: CallOptions = {}): Promise<void> {
    const json = { token: code, new_password: password }
    await this.#transport.send('POST', '/v1/me/password/reset/confirm', { ...options, json, signsIn: true })
  }

  /** Works in another of one's teams from now on. */
  async switchTeam(teamId: string, options: CallOptions = {}): Promise<SignedIn> {
    const json = { team_id: teamId }
    return signedIn(await this.#transport.json<wire.Auth>('POST', '/v1/auth/switch-team', { ...options, json }))
  }

  /** Begins the login of a program that has no page: show its person the code and the link, and call `finishDeviceLogin`. @param client what people see of it */
  async beginDeviceLogin(client: string, options: CallOptions = {}): Promise<DeviceLogin> {
    const made = await this.#transport.json<wire.DeviceLogin>('POST', '/v1/auth/device', {
      ...options,
      json: { client },
      signsIn: true,
    })
    return {
      deviceCode: made.device_code,
      userCode: made.user_code,
      verificationUri: made.verification_uri,
      verificationUriComplete: made.verification_uri_complete,
      expiresAt: new Date(made.expires_at),
      intervalMs: made.interval_sec * 1000,
    }
  }

  /** Waits until somebody has approved the login. @throws WrennError `forbidden` when it was refused, `login_expired` */
  async finishDeviceLogin({ deviceCode, intervalMs }: DeviceLogin, options: CallOptions = {}): Promise<SignedIn> {
    for (;;) {
      const json = { device_code: deviceCode }
      const request = { ...options, json, signsIn: true }
      const answer = await this.#transport.request('POST', '/v1/auth/device/token', request)
      if (answer.status !== PENDING) return signedIn((await answer.json()) as wire.Auth)
      await answer.arrayBuffer()
      await delay(intervalMs, options.signal)
    }
  }

  /** The program that waits with a code. @throws NotFoundError when none does any more */
  async waitingDevice(userCode: string, options: CallOptions = {}): Promise<WaitingDevice> {
    const found = await this.#transport.json<wire.WaitingDevice>('GET', device(userCode), options)
    return {
      client: found.client,
      ip: found.ip,
      createdAt: new Date(found.created_at),
      expiresAt: new Date(found.expires_at),
    }
  }

  /** Lets a program in as oneself, or sends it away. */
  async decideDevice(userCode: string, approve: boolean, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', device(userCode), { ...options, json: { approve } })
  }

  async #signIn(path: string, json: object, options: CallOptions): Promise<SignedIn> {
    const cookies = this.#transport.page === undefined ? undefined : true
    return await this.#begin(path, { ...options, json: { ...json, cookies } })
  }

  async #begin(path: string, options: RequestOptions): Promise<SignedIn> {
    const request = { ...options, signsIn: true }
    const answer = await this.#transport.json<wire.Auth | wire.SecondFactorNeeded>('POST', path, request)
    if ('second_factor' in answer) {
      const { token, methods, expires_at } = answer.second_factor
      throw new SecondFactorNeededError({ token, methods, expiresAt: new Date(expires_at) })
    }
    this.#transport.page?.renewed()
    return signedIn(answer)
  }
}

function device(userCode: string): string {
  return `/v1/auth/device/${encodeURIComponent(userCode)}`
}
