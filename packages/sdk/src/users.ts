import type * as wire from '@wrenn/protocol'
import { userInfo } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { UserInfo } from './types.js'

/** What a new account is. */
export interface CreateUserOptions extends CallOptions {
  /** Of the platform. @default false */
  readonly isAdmin?: boolean
}

/** An account that waits for its owner to activate it. */
export interface NewUserInfo extends UserInfo {
  /** Activates the account once; who has it chooses the password. */
  readonly activationToken: string
  readonly activationExpiresAt: Date
}

/** What is to become of an account; what is left out stays. */
export interface UpdateUserOptions extends CallOptions {
  /** `disabled` ends its sessions and the keys that it made. */
  readonly status?: 'active' | 'disabled'
  readonly isAdmin?: boolean
}

const PAGE = 200

/** Accounts of people on the whole platform; the client's key needs the scope `platform`. */
export class Users {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** All of them, oldest first. */
  async *list(options: CallOptions = {}): AsyncGenerator<UserInfo, void> {
    for (let after: string | undefined; ; ) {
      const query = { limit: PAGE, ...(after === undefined ? {} : { after }) }
      const page = await this.#transport.json<wire.User[]>('GET', '/v1/admin/users', { ...options, query })
      yield* page.map(userInfo)
      after = page.at(-1)?.id
      if (page.length < PAGE) return
    }
  }

  /** Makes an account; no mail is sent. @throws WrennError `email_taken` */
  async create(email: string, name: string, options: CreateUserOptions = {}): Promise<NewUserInfo> {
    const { isAdmin, ...call } = options
    const json = { email, name, is_admin: isAdmin }
    const made = await this.#transport.json<wire.NewUser>('POST', '/v1/admin/users', { ...call, json })
    return {
      ...userInfo(made),
      activationToken: made.activation_token,
      activationExpiresAt: new Date(made.activation_expires_at),
    }
  }

  /** Changes what an account may do. @throws WrennError `user_not_found`, `conflict` for the last admin */
  async update(id: string, options: UpdateUserOptions): Promise<UserInfo> {
    const { status, isAdmin, ...call } = options
    const json = { status, is_admin: isAdmin }
    const path = `/v1/admin/users/${encodeURIComponent(id)}`
    return userInfo(await this.#transport.json<wire.User>('PATCH', path, { ...call, json }))
  }

  /** Takes back that its owner has deleted an account, until it is erased. @throws WrennError `user_not_found`, `conflict` */
  async restore(id: string, options: CallOptions = {}): Promise<UserInfo> {
    const path = `/v1/admin/users/${encodeURIComponent(id)}/restore`
    return userInfo(await this.#transport.json<wire.User>('POST', path, options))
  }

  /** Removes the authenticator app, passkeys and recovery codes of who has lost them; their password is enough then. @throws WrennError `user_not_found` */
  async removeFactors(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `/v1/admin/users/${encodeURIComponent(id)}/factors`, options)
  }

  /** Activates an account with the token of its link, and with a password where it has none yet. @throws WrennError `invalid_token` */
  async activate(token: string, password?: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', '/v1/auth/activate', { ...options, json: { token, password } })
  }
}
