import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { breakOff, carry, formatAddress, joinSockets, parseAddress } from '@wrenn/base'
import type { Destination, NamesPolicy, RefusalReason } from '../host/names/index.js'
import type { Edge, EdgeMatch } from './edge/index.js'
import { type Beginning, hearFirst, readBeginning } from './first-bytes.js'
import { RequestGate } from './request-gate.js'
import { type NameResolver, TooManyLookups } from './resolver.js'
import type { Terminations } from './terminations.js'
import { Witness } from './witness.js'

const CONNECT_TIMEOUT_MS = 10_000
/** Addresses of a name that are tried before it counts as away. */
const MAXIMUM_ATTEMPTS = 3
const KEEPALIVE_MS = 60_000
/** How long one that has ended in one direction may be silent in the other. */
const HALF_CLOSED_MS = 120_000

/** An attempt that is refused. */
export interface RefusedAttempt {
  readonly name?: string
  readonly reason: RefusalReason
  readonly rule?: string
}

/** A place that a connection leads to. */
export type Used = Pick<Destination, 'address' | 'name'>

/** Opens a connection that may end in one direction; nothing when nobody answers. */
export type OpenConnection = (address: string, port: number) => Promise<Socket | undefined>

/** What a connection asks of the filter. */
export interface ConnectionContext {
  readonly source: string
  readonly resolver: NameResolver
  readonly open: OpenConnection
  /** As it is now; `undefined` once the source is forgotten. */
  readonly policy: () => NamesPolicy | undefined
  readonly onRefused: (attempt: RefusedAttempt) => void
  readonly edge: Edge
  /** What is to be set in requests to a host, as it is now. */
  readonly matchEdge: (name: string) => EdgeMatch | undefined
  readonly terminations: Pick<Terminations<Connection>, 'take' | 'leave'>
  /** Of a source that learns: where it is connected to. @param noted what was told of this connection, and turns out to be more */
  readonly onUsed: (used: Used, noted?: Used) => void
}

type Named = Exclude<Beginning, { readonly protocol: 'unknown' | 'none' }>

/**
 * A guest's connection, from its first byte on. The guest sees the peer that it asked for, and TLS stays between the two; where
 * it leads is what its name resolves to now.
 */
export class Connection {
  readonly #context: ConnectionContext
  readonly #client: Socket
  #server: Socket | undefined
  #address: number | undefined
  #name: string | undefined

  constructor(client: Socket, context: ConnectionContext) {
    this.#context = context
    this.#client = client
    client.setNoDelay(true)
    client.on('error', () => this.breakOff())
  }

  /** Comes to its end when the connection is joined to its server, or refused. */
  async serve(): Promise<void> {
    const policy = this.#context.policy()
    const asked = parseAddress(this.#client.localAddress ?? '')
    if (policy?.watches && asked !== undefined && policy.permitsUnnamed(asked)) await this.#watch(asked)
    else await this.#serveNamed()
  }

  async #serveNamed(): Promise<void> {
    const beginning = await readBeginning(this.#client)
    if (beginning.protocol === 'none') return this.breakOff()
    if (beginning.protocol === 'unknown') return this.#refuse({ reason: 'no_name' })
    const { name } = beginning
    const match = beginning.protocol === 'tls' ? this.#context.matchEdge(name) : undefined
    if (beginning.protocol === 'tls' && match !== undefined) {
      this.#client.unshift(beginning.bytes)
      return await this.#terminate(name, match)
    }
    const addresses = await this.#find(name)
    const server = addresses && (await this.#connect(name, addresses))
    if (server === undefined) return this.breakOff()
    this.#server = server
    this.#name = name
    this.#join(beginning, server)
  }

  /** Ends it if its policy does not permit it any more. One that is not joined yet meets the policy when it is. */
  review(): void {
    if (this.#address === undefined) return
    const policy = this.#context.policy()
    const isPermitted =
      this.#name === undefined ? policy?.permitsUnnamed(this.#address) : policy?.permits(this.#name, this.#address)
    if (isPermitted !== true) this.breakOff()
  }

  breakOff(): void {
    breakOff(this.#client)
    if (this.#server !== undefined) breakOff(this.#server)
  }

  #refuse(attempt: RefusedAttempt): void {
    this.#context.onRefused(attempt)
    this.breakOff()
  }

  /**
   * Joins it with the address that it asks for, which is allowed whatever is said, and listens for names. They decide nothing: such a
   * connection ends when its address alone is not enough any more.
   */
  async #watch(address: number): Promise<void> {
    const text = formatAddress(address)
    const server = await this.#context.open(text, this.#client.localPort ?? 0)
    if (server === undefined || this.#client.destroyed) {
      if (server !== undefined) breakOff(server)
      return this.breakOff()
    }
    this.#server = server
    const name = await hearFirst(this.#client, server)
    const match = name === undefined ? undefined : this.#context.matchEdge(name)
    if (name !== undefined && match !== undefined) {
      this.#server = undefined
      breakOff(server)
      return await this.#terminate(name, match)
    }
    this.#address = address
    this.review() // it may have changed meanwhile
    if (this.#client.destroyed) return
    const { onUsed } = this.#context
    let noted: Used = { address: text }
    onUsed(noted)
    const witness = new Witness((name) => {
      if (name === noted.name) return
      onUsed({ address: text, name }, noted.name === undefined ? noted : undefined)
      noted = { address: text, name }
    })
    this.#prepare(server)
    carry(this.#client, server, { through: witness })
    carry(server, this.#client)
  }

  /** Ends the guest's TLS here. Where its requests go is what the name resolves to, whatever address it asked for. */
  async #terminate(name: string, match: EdgeMatch): Promise<void> {
    const { source, terminations } = this.#context
    const waitMs = terminations.take(source, this)
    if (waitMs === undefined) return this.#refuse({ name, reason: 'too_many' })
    this.#client.once('close', () => terminations.leave(source, this))
    if (this.#client.destroyed) return terminations.leave(source, this)
    if (waitMs > 0) await delay(waitMs)
    if (this.#client.destroyed) return
    const addresses = await this.#find(name)
    if (addresses === undefined) return this.breakOff()
    this.#name = name
    const open = async (): Promise<Socket | undefined> => {
      const server = await this.#connect(name, addresses)
      if (server === undefined) return undefined
      this.#server = server
      this.#prepare(server)
      this.#noteUse(name)
      return server
    }
    const { edge, matchEdge } = this.#context
    const headers = (): EdgeMatch['headers'] | undefined => matchEdge(name)?.headers
    await edge.serve(this.#client, { name, authority: match.authority, headers, connect: open })
  }

  /** Where it may go; the address that the guest asked for first, if the name has it. */
  async #find(name: string): Promise<readonly number[] | undefined> {
    const verdict = this.#context.policy()?.judge(name)
    if (verdict?.verdict === 'denied') {
      this.#refuse({ name, reason: 'denied', rule: verdict.rule })
      return undefined
    }
    const found = await this.#resolve(name)
    if (found === undefined) return undefined
    const permitted = found.filter((address) => this.#context.policy()?.permits(name, address))
    const asked = parseAddress(this.#client.localAddress ?? '')
    if (permitted.length > 0) return permitted.sort((a, b) => Number(b === asked) - Number(a === asked))
    const isName = verdict?.verdict === 'allowed' || found.length === 0
    this.#refuse({ name, reason: isName ? 'no_address' : 'not_allowed' })
    return undefined
  }

  async #resolve(name: string): Promise<readonly number[] | undefined> {
    const { resolver, source, policy } = this.#context
    // A question is a way out, too.
    if (policy()?.resolves(name) !== true) {
      this.#refuse({ name, reason: 'not_allowed' })
      return undefined
    }
    try {
      return await resolver.addresses(name, source)
    } catch (error) {
      if (!(error instanceof TooManyLookups)) throw error
      this.#refuse({ name, reason: 'too_many' })
      return undefined
    }
  }

  async #connect(name: string, addresses: readonly number[]): Promise<Socket | undefined> {
    for (const address of addresses.slice(0, MAXIMUM_ATTEMPTS)) {
      if (this.#client.destroyed) return undefined
      const server = await this.#context.open(formatAddress(address), this.#client.localPort ?? 0)
      // Both may have changed meanwhile.
      const isWanted = !this.#client.destroyed && this.#context.policy()?.permits(name, address) === true
      if (server === undefined) continue
      if (isWanted) {
        this.#address = address
        return server
      }
      breakOff(server)
    }
    return undefined
  }

  #join(beginning: Named, server: Socket): void {
    this.#prepare(server)
    this.#noteUse(beginning.name)
    if (beginning.protocol === 'tls') {
      server.write(beginning.bytes)
      joinSockets(this.#client, server)
    } else this.#joinHttp(beginning, server)
  }

  #prepare(server: Socket): void {
    for (const socket of [this.#client, server]) {
      socket.setKeepAlive(true, KEEPALIVE_MS)
      socket.once('end', () => this.#limitSilence())
    }
  }

  #noteUse(name: string): void {
    if (this.#address !== undefined) this.#context.onUsed({ name, address: formatAddress(this.#address) })
  }

  #joinHttp({ reader, parts }: Extract<Named, { readonly protocol: 'http' }>, server: Socket): void {
    const client = this.#client
    const mayAsk = (name: string): boolean => {
      const isAllowed = this.#address !== undefined && this.#context.policy()?.permits(name, this.#address) === true
      if (isAllowed && name !== this.#name) this.#noteUse(name)
      if (isAllowed) this.#name = name
      else this.#context.onRefused({ name, ...this.#why(name) })
      return isAllowed
    }
    const gate = new RequestGate({ reader, mayAsk })
    gate.on('error', () => this.breakOff())
    gate.begin(parts)
    carry(client, server, { through: gate })
    carry(server, client)
    server.on('data', (chunk: Buffer) => gate.heard(chunk))
  }

  #why(name: string): Omit<RefusedAttempt, 'name'> {
    const verdict = this.#context.policy()?.judge(name)
    return verdict?.verdict === 'denied' ? { reason: 'denied', rule: verdict.rule } : { reason: 'not_allowed' }
  }

  #limitSilence(): void {
    for (const socket of [this.#client, this.#server]) {
      socket?.setTimeout(HALF_CLOSED_MS, () => this.breakOff())
    }
  }
}

/** By TCP, within 10 s. */
export const openTcp: OpenConnection = async (host, port) => {
  return await new Promise((resolve) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
    // For as long as it lives: whoever has it sees it close, and at no time is an error of it the end of the whole filter.
    socket.on('error', () => {})
    const finish = (result: Socket | undefined): void => {
      clearTimeout(timer)
      socket.off('connect', onConnect).off('error', onFailure)
      if (result === undefined) socket.destroy()
      resolve(result)
    }
    const onConnect = (): void => finish(socket)
    const onFailure = (): void => finish(undefined)
    const timer = setTimeout(onFailure, CONNECT_TIMEOUT_MS)
    socket.once('connect', onConnect).once('error', onFailure)
  })
}
