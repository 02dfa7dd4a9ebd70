import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'
import type { EgressPolicy } from './types.js'

/** Headers that are set in requests by TLS to a host, outside the guest: a token in one never enters it. */
export interface EgressRuleWish {
  /** `example.org`, or `*.example.org` for each name below it; the nearest rule counts. It opens no way to the host. */
  readonly host: string
  /** Values by name; they are kept encrypted and shown to nobody. Names alone keep the values that they have. */
  readonly headers: Readonly<Record<string, string>> | string[]
}

/** What a capsule is to reach; what is left out has its default. */
export interface EgressWish extends Partial<Omit<EgressPolicy, 'rules'>> {
  /** At most 64. @default none */
  readonly rules?: EgressRuleWish[] | undefined
}

/** What a capsule may reach, and whether its host knows. */
export interface EgressInfo {
  readonly policy: EgressPolicy
  /** False while the host is away or the capsule is being made: then it comes into force as soon as it can. */
  readonly inForce: boolean
}

/** Attempts at one target that were refused by name. */
export interface RefusalInfo {
  /** The host that was asked for; `undefined` when the attempt named none. */
  readonly name: string | undefined
  /** Where the connection went; `undefined` for a question to the resolver. */
  readonly address: string | undefined
  readonly port: number
  /**
   * `denied`: `deny` has the name. `not_allowed`: nothing allows it. `no_name`: it names no host. `no_address`: the name leads
   * nowhere that may be reached. `too_many`: too much at once.
   */
  readonly reason: 'denied' | 'not_allowed' | 'no_name' | 'no_address' | 'too_many'
  /** The entry of the policy that refused, where one did. */
  readonly rule: string | undefined
  readonly count: number
  readonly lastAt: Date
}

/** A place that a capsule has used. */
export interface DestinationInfo {
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  /** The host; `undefined` where nothing told it. */
  readonly name: string | undefined
  /** `connection`: it said the name itself. `lookup`: the resolver had answered the name with this address. */
  readonly namedBy: 'connection' | 'lookup' | undefined
  /** Of a name that connections say, the one that was used last. */
  readonly address: string
  /** 0 for `icmp`. */
  readonly port: number
  /** Connections, or flows of datagrams. */
  readonly count: number
}

/** What a capsule has used while its policy says `learn`. */
export interface LearnedInfo {
  /** The most used first. */
  readonly destinations: readonly DestinationInfo[]
  /** False when more was used than is kept, or than the proposal has room for. */
  readonly complete: boolean
  /** A policy that allows what was used, and nothing else: give it to {@link Egress.set}. */
  readonly proposal: EgressPolicy
}

/** What a capsule may reach, and what it was refused. */
export interface EgressStatus extends EgressInfo {
  /** Since it last started, resumed or went back; the newest first, bounded. */
  readonly refused: readonly RefusalInfo[]
  /** While the policy says `learn`; also `undefined` when the host cannot tell just now. */
  readonly learned: LearnedInfo | undefined
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
  async get(options: CallOptions = {}): Promise<EgressStatus> {
    const answer = await this.#transport.json<wire.EgressStatus>('GET', this.#path, options)
    const learned = answer.learned && learnedInfo(answer.learned)
    return { ...egressInfo(answer), refused: answer.refused.map(refusalInfo), learned }
  }

  /**
   * Replaces the whole policy, at once for a running capsule: what becomes forbidden ends its open connections, what stays allowed
   * is never cut. What is left out has its default: `internet` true, `allow`, `deny` and `rules` empty, `learn`
   * false.
   * @example
   * await capsule.egress.set({ internet: false, allow: ['example.org', '*.example.org', '203.0.113.0/24'] })
   * @example
   * const rules = [{ host: 'api.example.org', headers: { authorization: `Bearer ${token}` } }]
   * await capsule.egress.set({ rules })
   * @throws CapsuleNotFoundError; WrennError `invalid_request` naming the entry that is no IPv4 address, network or domain, or the rule;
   * `not_supported` for rules where the platform has no key to keep them with
   */
  async set(policy: EgressWish, options: CallOptions = {}): Promise<EgressInfo> {
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

function learnedInfo({ destinations, ...rest }: wire.Learned): LearnedInfo {
  return {
    ...rest,
    destinations: destinations.map(({ name, named_by: namedBy, ...each }) => ({ ...each, name, namedBy })),
  }
}

function refusalInfo({
  name,
  address,
  rule,
  last_at: lastAt,
  ...rest
}: wire.EgressStatus['refused'][number]): RefusalInfo {
  return { ...rest, name, address, rule, lastAt: new Date(lastAt) }
}
