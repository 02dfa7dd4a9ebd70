import type * as wire from '@wrenn/protocol'
import { sessionInfo } from './convert.js'
import type { CallOptions, Transport } from './transport.js'
import type { SessionInfo } from './types.js'

/** Where a person is logged in; for clients that are a person's session themselves. */
export class Sessions {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** The one used last first. */
  async list(options: CallOptions = {}): Promise<SessionInfo[]> {
    return (await this.#transport.json<wire.Session[]>('GET', '/v1/auth/sessions', options)).map(sessionInfo)
  }

  /** Ends one, everywhere within a second. @throws WrennError `session_not_found` */
  async revoke(id: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', `/v1/auth/sessions/${encodeURIComponent(id)}`, options)
  }

  /** Ends all but this one. */
  async revokeOthers(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', '/v1/auth/sessions', options)
  }
}
