import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

/** A login of the team at a registry of images, without its password. */
export interface RegistryLoginInfo {
  /** `host` or `host:port`, as images name it. */
  readonly registry: string
  readonly username: string
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** How builds of the team log in at registries of images. */
export class Registries {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** By registry. */
  async list(options: CallOptions = {}): Promise<RegistryLoginInfo[]> {
    return (await this.#transport.json<wire.RegistryLogin[]>('GET', '/v1/registries', options)).map(loginInfo)
  }

  /**
   * Keeps a login, in the place of an earlier one at that registry. Builds of the team ask with it, and nobody sees the password again.
   * @throws WrennError `invalid_request`, `limit_exceeded`, `not_supported`
   * @example
   * await wrenn.registries.login('ghcr.io', 'robot', token)
   */
  async login(
    registry: string,
    username: string,
    password: string,
    options: CallOptions = {},
  ): Promise<RegistryLoginInfo> {
    const json = { username, password }
    return loginInfo(await this.#transport.json<wire.RegistryLogin>('PUT', pathOf(registry), { ...options, json }))
  }

  /** Forgets a login. @throws WrennError `not_found` */
  async logout(registry: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', pathOf(registry), options)
  }
}

function pathOf(registry: string): string {
  return `/v1/registries/${encodeURIComponent(registry)}`
}

function loginInfo({ registry, username, created_at, updated_at }: wire.RegistryLogin): RegistryLoginInfo {
  return { registry, username, createdAt: new Date(created_at), updatedAt: new Date(updated_at) }
}
