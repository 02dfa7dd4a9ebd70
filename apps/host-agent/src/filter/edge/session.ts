import { Agent, type ClientRequest, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { connect, type SecureContext, type TLSSocket } from 'node:tls'
import { breakOff } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'

export const HANDSHAKE_TIMEOUT_MS = 10_000
/** The one protocol that is spoken with both sides. */
export const ALPN = ['http/1.1']
/** Requests that a client may have sent before their answers: each takes memory of all capsules' filter. */
const MAXIMUM_PIPELINED = 16

/** How long a connection may stay without what it is there for. */
export interface EdgeTimes {
  /** For the whole head of its first or next request. */
  readonly waitMs: number
  /** After its end, for the guest to end it, too. */
  readonly lingerMs: number
}

export interface Terminated {
  readonly name: string
  /** Who speaks for the host toward the guest. */
  readonly authority: Credentials
  /** What is set in its requests, as it is now; nothing when no rule has the host any more. */
  readonly headers: () => Readonly<Record<string, string>> | undefined
  /** A connection to the host, by the policy; nothing when there is none. */
  readonly connect: () => Promise<Socket | undefined>
}

interface SessionOptions extends Terminated {
  /** Its TLS, whose handshake is done. */
  readonly guest: TLSSocket
  /** What that goes over. */
  readonly client: Socket
  readonly trusted: SecureContext
  readonly times: EdgeTimes
}

/**
 * A guest's connection with its one connection to the host. Requests go on one after the other, in their order, and none any more once
 * either side has ended.
 */
export class Session {
  readonly #options: SessionOptions
  readonly agent: Agent
  readonly #waiting: (() => void)[] = []
  readonly #onward = new Set<ClientRequest>()
  /** Requests without a whole answer. */
  #open = 0
  #isOver = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: SessionOptions) {
    this.#options = options
    this.agent = this.#makeAgent()
    options.guest.once('close', () => {
      this.#isOver = true
      clearTimeout(this.#timer)
      for (const onward of this.#onward) onward.destroy()
      this.agent.destroy()
    })
    this.#expect()
  }

  get name(): string {
    return this.#options.name
  }

  get isIdle(): boolean {
    return this.#open === 0 && !this.#isOver
  }

  /** What is set in a request that goes on now; nothing when none may. */
  headers(): Readonly<Record<string, string>> | undefined {
    return this.#isOver ? undefined : this.#options.headers()
  }

  /** @param begin serves a request, once those before it are answered; `response` is its answer. Too many of them end the connection */
  take(response: ServerResponse, begin: () => void): void {
    if (this.#isOver || this.#open >= MAXIMUM_PIPELINED) {
      this.#options.guest.destroy()
      return
    }
    this.#open += 1
    clearTimeout(this.#timer)
    response.once('close', () => this.#answered())
    if (this.#open === 1) begin()
    else this.#waiting.push(begin)
  }

  /** A request of which the guest's end is the end. */
  follow(onward: ClientRequest): void {
    this.#onward.add(onward)
    onward.once('close', () => this.#onward.delete(onward))
  }

  /** From here on it is no HTTP: it lasts as long as both sides do. */
  detach(): void {
    clearTimeout(this.#timer)
  }

  /** Ends it in good order. A guest that does not go along is left. */
  end(): void {
    const { guest, client, times } = this.#options
    this.#isOver = true
    if (guest.destroyed) return
    guest.end()
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => breakOff(client), times.lingerMs)
  }

  #answered(): void {
    const { guest } = this.#options
    this.#open -= 1
    if (guest.destroyed) return
    const next = this.#waiting.shift()
    if (this.#isOver || guest.writableEnded) this.end()
    else if (next === undefined) this.#expect()
    else next()
  }

  /** What has begun a head, or has nothing to say, does not keep its place for ever. */
  #expect(): void {
    this.#timer = setTimeout(() => this.end(), this.#options.times.waitMs)
  }

  /** The host has ended. What it had said is still delivered, as long as the guest takes it. */
  #lose(): void {
    const { guest, client, times } = this.#options
    this.#isOver = true
    if (this.#open === 0) this.end()
    else guest.setTimeout(times.lingerMs, () => breakOff(client))
  }

  /** Connects to the host as often as the guest's connection needs it, which is once. */
  #makeAgent(): Agent {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const createConnection: Agent['createConnection'] = (_options, callback) => {
      this.#connect().then(
        (socket) => callback?.(null, socket),
        (error: unknown) => callback?.(error instanceof Error ? error : new Error(String(error)), undefined as never),
      )
      return undefined
    }
    return Object.assign(agent, { createConnection })
  }

  async #connect(): Promise<TLSSocket> {
    const { name, connect: open, guest, trusted } = this.#options
    const socket = this.#isOver ? undefined : await open()
    if (socket === undefined) throw new Error(`${name} cannot be reached`)
    const server = await secure(socket, { name, trusted, guest })
    server.once('end', () => server.end()) // it may end in one direction, as what it goes over may
    server.once('close', () => this.#lose())
    guest.once('close', () => server.destroy())
    return server
  }
}

/** @throws when it is not the host by its certificate, when it takes too long, and when the guest is gone */
async function secure(
  socket: Socket,
  { name, trusted, guest }: { readonly name: string; readonly trusted: SecureContext; readonly guest: TLSSocket },
): Promise<TLSSocket> {
  return await new Promise((resolve, reject) => {
    const server = connect({
      ...{ socket, servername: name, secureContext: trusted, ALPNProtocols: ALPN },
      rejectUnauthorized: true,
    })
    const giveUp = (): void => void server.destroy(new Error('the connection has ended'))
    const settle = (): void => {
      clearTimeout(timer)
      guest.off('close', giveUp)
    }
    const timer = setTimeout(() => server.destroy(new Error('TLS takes too long')), HANDSHAKE_TIMEOUT_MS)
    server.on('error', (error) => {
      settle()
      breakOff(socket)
      reject(error)
    })
    server.once('close', () => {
      settle()
      reject(new Error('the connection has ended'))
    })
    server.once('secureConnect', () => {
      settle()
      resolve(server)
    })
    guest.once('close', giveUp)
    if (guest.destroyed) giveUp()
  })
}
