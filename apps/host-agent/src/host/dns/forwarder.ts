import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Socket, type Server as TcpServer } from 'node:net'
import { AppError, errorText, type Logger } from '@wrenn/base'
import { type Exchange, exchangeTcp, exchangeUdp } from './exchange.js'
import { FrameReader, frame } from './frames.js'
import { parseQuery, type Query, serverFailure } from './message.js'
import { Upstreams } from './upstreams.js'

/** Bounds on what all guests, and what one guest, can make us hold open at a time. */
const MAXIMUM_IN_FLIGHT = 1024
const MAXIMUM_IN_FLIGHT_PER_CLIENT = 64
const MAXIMUM_CONNECTIONS = 256
const MAXIMUM_CONNECTIONS_PER_CLIENT = 16
const IDLE_CONNECTION_MS = 10_000

export interface DnsForwarderOptions {
  readonly address: string
  readonly logger: Logger
  /** @default 53 */
  readonly port?: number
  /** @default '/etc/resolv.conf' */
  readonly resolvConfPath?: string
  /** Port of the upstream servers. @default 53 */
  readonly upstreamPort?: number
  /** How long one server may take; resolvers in guests wait about 5 s in all. @default 2000 */
  readonly timeoutMs?: number
}

/** Relays DNS of the capsules to the host's own resolvers, whatever network those are in. */
export interface DnsForwarder extends AsyncDisposable {
  readonly port: number
  close(): Promise<void>
}

/** @throws AppError `engine_failure` when the address cannot be listened on. */
export async function startDnsForwarder(options: DnsForwarderOptions): Promise<DnsForwarder> {
  const forwarder = new Forwarder(options)
  try {
    await forwarder.listen()
    return forwarder
  } catch (error) {
    await forwarder.close()
    const where = `${options.address} port ${options.port ?? 53}`
    throw new AppError('engine_failure', `The DNS forwarder cannot listen on ${where}: ${errorText(error)}`, {
      cause: error,
    })
  }
}

/** Counts what each client has open, and refuses past the limits. */
class Gate {
  #total = 0
  readonly #perClient = new Map<string, number>()

  constructor(
    private readonly limit: number,
    private readonly limitPerClient: number,
  ) {}

  enter(client: string): boolean {
    const mine = this.#perClient.get(client) ?? 0
    if (this.#total >= this.limit || mine >= this.limitPerClient) return false
    this.#total += 1
    this.#perClient.set(client, mine + 1)
    return true
  }

  leave(client: string): void {
    const mine = (this.#perClient.get(client) ?? 1) - 1
    this.#total -= 1
    if (mine === 0) this.#perClient.delete(client)
    else this.#perClient.set(client, mine)
  }
}

class Forwarder implements DnsForwarder {
  readonly #options: DnsForwarderOptions
  readonly #upstreams: Upstreams
  readonly #udp: UdpSocket = createSocket('udp4')
  readonly #tcp: TcpServer = createServer()
  readonly #queries = new Gate(MAXIMUM_IN_FLIGHT, MAXIMUM_IN_FLIGHT_PER_CLIENT)
  readonly #connections = new Gate(MAXIMUM_CONNECTIONS, MAXIMUM_CONNECTIONS_PER_CLIENT)
  readonly #sockets = new Set<Socket>()
  #open = false

  constructor(options: DnsForwarderOptions) {
    this.#options = options
    this.#upstreams = new Upstreams(options.resolvConfPath ?? '/etc/resolv.conf', [options.address])
  }

  get port(): number {
    return this.#udp.address().port
  }

  async listen(): Promise<void> {
    const { address, port = 53, logger } = this.#options
    this.#udp.bind(port, address)
    await once(this.#udp, 'listening')
    this.#open = true
    this.#tcp.listen(this.port, address)
    await once(this.#tcp, 'listening')
    this.#udp.on('error', (error) => logger.warn({ err: error.message }, 'dns.udp_error'))
    this.#tcp.on('error', (error) => logger.warn({ err: error.message }, 'dns.tcp_error'))
    this.#udp.on('message', (message, from) => {
      this.#reply(message, from.address, exchangeUdp, (answer) => this.#send(answer, from.port, from.address))
    })
    this.#tcp.on('connection', (socket) => this.#accept(socket))
    logger.info({ address, port: this.port }, 'dns.listening')
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (this.#tcp.listening) await new Promise((resolve) => this.#tcp.close(resolve))
    if (!this.#open) return
    this.#open = false
    await new Promise<void>((resolve) => this.#udp.close(resolve))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #send(answer: Buffer, port: number, address: string): void {
    // The client may be gone by now; there is nobody to tell.
    if (this.#open) this.#udp.send(answer, port, address, () => {})
  }

  #accept(socket: Socket): void {
    const client = socket.remoteAddress ?? ''
    if (!this.#connections.enter(client)) {
      socket.destroy()
      return
    }
    this.#sockets.add(socket)
    const frames = new FrameReader()
    socket.setTimeout(IDLE_CONNECTION_MS, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#sockets.delete(socket)
      this.#connections.leave(client)
    })
    socket.on('data', (chunk) => {
      for (const message of frames.push(chunk)) {
        const accepted = this.#reply(message, client, exchangeTcp, (answer) => {
          if (!socket.destroyed) socket.write(frame(answer))
        })
        if (!accepted) socket.destroy()
      }
    })
  }

  /** Starts the relay of one message; false when it is no query or its client asks too much at once. */
  #reply(message: Buffer, client: string, exchange: Exchange, send: (answer: Buffer) => void): boolean {
    const query = parseQuery(message)
    if (!query || !this.#queries.enter(client)) return false
    this.#relay(message, query, exchange)
      .then(send)
      .catch((error: unknown) => this.#options.logger.warn({ err: errorText(error) }, 'dns.relay_failed'))
      .finally(() => this.#queries.leave(client))
    return true
  }

  async #relay(message: Buffer, query: Query, exchange: Exchange): Promise<Buffer> {
    const { upstreamPort: port = 53, timeoutMs = 2000 } = this.#options
    for (const address of await this.#upstreams.list()) {
      const answer = await exchange(message, query, { address, port }, timeoutMs)
      if (answer) return answer
    }
    return serverFailure(message, query)
  }
}
