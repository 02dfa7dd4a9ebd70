import type { Socket } from 'node:net'
import type { FilterAnswer, FilterAsk } from '../host/filter/protocol.js'
import { NamesPolicy, Refusals } from '../host/names/index.js'
import { type EgressPolicy, resolvePolicy } from '../host/network/policy.js'
import { Connection, type OpenConnection, openTcp } from './connection.js'
import { type PlaceLimits, Places } from './places.js'
import type { NameResolver } from './resolver.js'

const LIMITS: PlaceLimits = { all: 8192, perSource: 256 }

interface FilterOptions {
  readonly resolver: NameResolver
  /** Which program this is. */
  readonly version: string
  readonly limits?: PlaceLimits
  /** @default openTcp */
  readonly open?: OpenConnection
  /** Told of what is a bug of ours; the connection ends. */
  readonly onFailure: (error: unknown) => void
}

/** Lets guests' connections through by the names that they say, each source by its policy. What has none is refused. */
export class Filter {
  readonly #options: FilterOptions
  readonly #policies = new Map<string, NamesPolicy>()
  readonly #places: Places<Connection>
  readonly #refusals = new Refusals()

  constructor(options: FilterOptions) {
    this.#options = options
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
      default:
        return { version: this.#options.version }
    }
  }

  #set(source: string, policy: EgressPolicy): void {
    this.#policies.set(source, new NamesPolicy(resolvePolicy(policy)))
    for (const connection of this.#places.of(source)) connection.review()
  }

  /** Its connections first: what they still report of it is not noted. */
  #forget(source: string): void {
    this.#policies.delete(source)
    for (const connection of this.#places.of(source)) connection.breakOff()
    this.#refusals.forget(source)
  }
}
