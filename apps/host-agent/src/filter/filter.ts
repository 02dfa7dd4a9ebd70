import type { Socket } from 'node:net'
import { rootCertificates } from 'node:tls'
import type { FilterAnswer, FilterAsk } from '../host/filter/protocol.js'
import { type Destination, Destinations, NamesPolicy, Refusals } from '../host/names/index.js'
import { type EgressPolicy, resolvePolicy } from '../host/network/policy.js'
import { Connection, type OpenConnection, openTcp, type Used } from './connection.js'
import { Edge, EdgeRules, type EdgeTimes } from './edge/index.js'
import { type PlaceLimits, Places } from './places.js'
import type { NameResolver } from './resolver.js'
import { Terminations } from './terminations.js'

const LIMITS: PlaceLimits = { all: 8192, perSource: 256 }

export interface FilterOptions {
  readonly resolver: NameResolver
  /** Which program this is. */
  readonly version: string
  readonly limits?: PlaceLimits
  /** Of connections whose TLS ends here. */
  readonly terminated?: PlaceLimits
  readonly edgeTimes?: EdgeTimes
  /** @default openTcp */
  readonly open?: OpenConnection
  /** Whose certificates hosts with rules may have, as PEM. @default those that Node.js comes with */
  readonly ca?: readonly string[]
  /** Told of what is a bug of ours; the connection ends. */
  readonly onFailure: (error: unknown) => void
}

function destinationOf(used: Used, port: number): Omit<Destination, 'count'> {
  return { protocol: 'tcp', port, ...used, namedBy: used.name === undefined ? undefined : 'connection' }
}

/** Lets guests' connections through by the names that they say, each source by its policy. What has none is refused. */
export class Filter {
  readonly #options: FilterOptions
  readonly #policies = new Map<string, NamesPolicy>()
  readonly #places: Places<Connection>
  readonly #refusals = new Refusals()
  readonly #used = new Destinations()
  readonly #edge: Edge
  readonly #terminations: Terminations<Connection>
  readonly #edgeRules = new Map<string, EdgeRules>()

  constructor(options: FilterOptions) {
    this.#options = options
    this.#edge = new Edge({ ca: options.ca ?? rootCertificates, times: options.edgeTimes })
    this.#terminations = new Terminations(options.terminated)
    this.#places = new Places(options.limits ?? LIMITS)
  }

  get connections(): number {
    return this.#places.taken
  }

  /** Owns the socket from then on. It was opened with `allowHalfOpen`; its local end is the peer that the guest asked for. */
  accept(socket: Socket): void {
    const source = socket.remoteAddress ?? ''
    const { localAddress: address, localPort: port = 0 } = socket
    const note = (attempt: Parameters<Refusals['note']>[1]): void => {
      if (this.#policies.has(source)) this.#refusals.note(source, attempt)
    }
    if (!this.#policies.has(source) || !this.#places.makeRoom(source)) {
      note({ address, port, reason: 'too_many' })
      socket.on('error', () => {}).resetAndDestroy()
      return
    }
    const connection = new Connection(socket, {
      source,
      resolver: this.#options.resolver,
      open: this.#options.open ?? openTcp,
      policy: () => this.#policies.get(source),
      onRefused: (attempt) => note({ address, port, ...attempt }),
      edge: this.#edge,
      terminations: this.#terminations,
      matchEdge: (name) => this.#edgeRules.get(source)?.find(name),
      onUsed: (used, noted) => {
        if (this.#policies.get(source)?.learns !== true) return
        const as = (each: typeof used) => destinationOf(each, port)
        if (noted === undefined) this.#used.note(source, as(used))
        else this.#used.rename(source, as(noted), as(used))
      },
    })
    this.#places.take(source, connection)
    socket.once('close', () => this.#places.leave(source, connection))
    connection.serve().catch((error: unknown) => {
      this.#options.onFailure(error)
      connection.breakOff()
    })
  }

  /** @throws AppError `invalid_request` for a policy that cannot be kept */
  answer(ask: FilterAsk): Omit<FilterAnswer, 'id'> {
    switch (ask.op) {
      case 'set':
        this.#set(ask.source, ask.policy)
        return {}
      case 'forget':
        this.#forget(ask.source)
        return {}
      case 'keep':
        for (const source of [...this.#policies.keys()]) if (!ask.sources.includes(source)) this.#forget(source)
        return {}
      case 'refused':
        return { refused: [...this.#refusals.list(ask.source)] }
      case 'learned': {
        const { destinations, isComplete } = this.#used.list(ask.source)
        return { learned: { destinations: [...destinations], isComplete } }
      }
      default:
        return { version: this.#options.version }
    }
  }

  #set(source: string, policy: EgressPolicy): void {
    this.#policies.set(source, new NamesPolicy(resolvePolicy(policy)))
    if (policy.learn !== true) this.#used.forget(source)
    this.#setRules(source, policy)
    for (const connection of this.#places.of(source)) connection.review()
  }

  /** Without rules those that there are stay, unless they are of another capsule, which had the address before. */
  #setRules(source: string, { intercept, rules, authority }: EgressPolicy): void {
    if (rules !== undefined && authority !== undefined) this.#edgeRules.set(source, new EdgeRules(rules, authority))
    else if (intercept !== true || this.#edgeRules.get(source)?.isOf(authority) !== true) this.#edgeRules.delete(source)
  }

  /** Its connections first: what they still report of it is not noted. */
  #forget(source: string): void {
    this.#policies.delete(source)
    for (const connection of this.#places.of(source)) connection.breakOff()
    this.#refusals.forget(source)
    this.#used.forget(source)
    this.#edgeRules.delete(source)
    this.#terminations.forget(source)
  }
}
