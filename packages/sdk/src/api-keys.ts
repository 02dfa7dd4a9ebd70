import type * as wire from '@wrenn/protocol'
import { apiKeyInfo } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { ApiKeyInfo, ApiKeyScope } from './types.js'

/** What a new key is. It may do no more, and lives no longer, than the key that makes it. */
export interface CreateApiKeyOptions extends CallOptions {
  /** For people; need not be unique. @default 'Unnamed API Key' */
  readonly name?: string
  /** @default those of the key that makes it */
  readonly scopes?: readonly ApiKeyScope[]
  /** At least a minute; whole seconds. @default it does not expire, or with the key that makes it */
  readonly expiresInMs?: number
  /** `e2b`: the form that clients made for E2B take. @default 'wrn' */
  readonly format?: 'wrn' | 'e2b'
}

/** The keys of the team; the client's own key needs the scope `admin`. */
export class ApiKeys {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Those that are not revoked, newest first; expired ones for 30 more days. */
  async list(options: CallOptions = {}): Promise<ApiKeyInfo[]> {
    const keys: ApiKeyInfo[] = []
    let cursor: string | undefined
    do {
      const response = await this.#transport.request('GET', '/v1/api-keys', { ...options, query: { cursor } })
      const page: wire.ApiKey[] = await response.json()
      keys.push(...page.map(apiKeyInfo))
      cursor = response.headers.get('x-next-token') || undefined
    } while (cursor !== undefined)
    return keys
  }

  /**
   * Makes a key. Only this answer has it: `key`.
   * @throws AuthenticationError (`forbidden`) when it would be more than the key that makes it
   * @example
   * const { key } = await wrenn.apiKeys.create({ name: 'ci', scopes: ['capsules'], expiresInMs: 90 * 86_400_000 })
   */
  async create(options: CreateApiKeyOptions = {}): Promise<ApiKeyInfo & { readonly key: string }> {
    const { name, scopes, expiresInMs, format, ...call } = options
    const json = {
      name,
      scopes,
      format,
      expires_in_sec: expiresInMs === undefined ? undefined : Math.floor(expiresInMs / 1000),
    }
    const made = await this.#transport.json<wire.NewApiKey>('POST', '/v1/api-keys', { ...call, json })
    return { ...apiKeyInfo(made), key: made.key }
  }

  /** Ends a key, everywhere within a second; repeats succeed. @throws WrennError `api_key_not_found`, `conflict` */
  async revoke(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `/v1/api-keys/${encodeURIComponent(id)}`, options)
  }
}
