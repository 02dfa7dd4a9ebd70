import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

/** Somebody else's service that people can sign in with, such as GitHub. */
export interface ProviderInfo {
  readonly id: string
  /** For people. */
  readonly name: string
  /** Where a browser goes to sign in with it; takes the queries `intent` (`login` or `signup`) and `next`. */
  readonly loginUrl: string
}

/** What one can sign in with beside a password. Which of them an account is connected with says `account.me`. */
export class Providers {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Those of the platform; needs no session. */
  async list(options: CallOptions = {}): Promise<ProviderInfo[]> {
    const request = { ...options, signsIn: true }
    const list = await this.#transport.json<wire.Provider[]>('GET', '/v1/auth/providers', request)
    return list.map(({ id, name, login_url: loginUrl }) => ({ id, name, loginUrl }))
  }

  /**
   * Begins to connect one's own account. For pages: the browser that asks, and no other, can go on. Needs a login or `account.confirm` of the last
   * 10 minutes.
   * @returns where it goes; it comes back to the settings
   * @throws WrennError `confirmation_needed`, `provider_not_found`, `provider_unavailable`, `limit_exceeded`
   */
  async connect(id: string, options: CallOptions = {}): Promise<string> {
    return (await this.#transport.json<wire.ConnectProvider>('POST', `${mine(id)}/connect`, options)).auth_url
  }

  /** @throws WrennError `provider_not_found` when it is not connected, `last_login_method` */
  async disconnect(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', mine(id), options)
  }
}

function mine(id: string): string {
  return `/v1/me/providers/${encodeURIComponent(id)}`
}
