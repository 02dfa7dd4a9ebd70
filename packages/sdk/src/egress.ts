import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'
import type { EgressPolicy } from './types.js'

/** What a capsule may reach, and whether its host knows. */
export interface EgressInfo {
  readonly policy: EgressPolicy
  /** False while the host is away or the capsule is being made: then it comes into force as soon as it can. */
  readonly inForce: boolean
}

/** What one capsule may reach. Use it as `capsule.egress`. */
export class Egress {
  readonly #transport: Transport
  readonly #path: string

  constructor(transport: Transport, capsulePath: string) {
    this.#transport = transport
    this.#path = `${capsulePath}/egress`
  }

  /** @throws CapsuleNotFoundError */
  async get(options: CallOptions = {}): Promise<EgressInfo> {
    return egressInfo(await this.#transport.json<wire.Egress>('GET', this.#path, options))
  }

  /**
   * Replaces the whole policy, at once for a running capsule: what becomes forbidden ends its open connections, what stays allowed
   * is never cut. What is left out has its default: `internet` true, `allow` and `deny` empty.
   * @example
   * await capsule.egress.set({ internet: false, allow: ['203.0.113.0/24'] })
   * @throws CapsuleNotFoundError; WrennError `invalid_request` naming the entry that is no IPv4 address or network
   */
  async set(policy: Partial<EgressPolicy>, options: CallOptions = {}): Promise<EgressInfo> {
    const answer = await this.#transport.json<wire.Egress>('PUT', this.#path, {
      ...options,
      json: policy,
      idempotent: true,
    })
    return egressInfo(answer)
  }
}

function egressInfo({ policy, in_force: inForce }: wire.Egress): EgressInfo {
  return { policy, inForce }
}
