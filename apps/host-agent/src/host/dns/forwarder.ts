import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Server as TcpServer } from 'node:net'
import { AppError, errorText, type Logger } from '@wrenn/base'
import { PATIENCE_MS } from './ask.js'
import { answeredAddresses, parseQuery, type Query, questionName, refusal } from './message.js'
import { Questions } from './questions.js'
import { giveReceiveBuffer } from './receive-buffer.js'
import { TcpFront } from './tcp-front.js'
import { Upstreams } from './upstreams.js'

/** Resolvers in guests ask again after 5 s (resolv.conf(5), `timeout`): the answer must be there before. */
const TIMEOUT_MS = 4_500
/** Room for a burst while this process is busy with something else. */
const RECEIVE_BUFFER_BYTES = 4 * 2 ** 20

/** Wants to know what some clients are answered. */
export interface AnswerWitness {
  wants(client: string): boolean
  /** @param name as it was asked for, in lower case */
  hear(client: string, name: string, addresses: readonly string[]): void
}

/** Where it listens, whom it asks and how long it waits. */
export interface DnsForwarderOptions {
  /** The only address that it listens on: the capsules' name server, unreachable for others by the root rules. */
  readonly address: string
  readonly logger: Logger
  /** @default 53 */
  readonly port?: number
  /** Names the servers; read again when it changes. @default '/etc/resolv.conf' */
  readonly resolvConfPath?: string
  /** Port of the upstream servers. @default 53 */
  readonly upstreamPort?: number
  /** From a question to its answer, which is SERVFAIL when no server has one. @default 4500 */
  readonly timeoutMs?: number
  /** How long a server may be silent before another one is asked too. @default 1000 */
  readonly patienceMs?: number
  /** Whether a client gets answers for a name, in lower case; REFUSED is what it gets else. @default all */
  readonly mayAsk?: (client: string, name: string) => boolean
  /** Told of each answer with addresses to a client whose answers are wanted. */
  readonly witness?: AnswerWitness
}

/** Relays DNS of the capsules to the host's own resolvers, whatever network those are in. */
export interface DnsForwarder extends AsyncDisposable {
  readonly port: number
  /** What is kept for clients; nothing when none waits for an answer. */
  readonly held: { readonly questions: number; readonly clients: number }
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

class Forwarder implements DnsForwarder {
  readonly #options: DnsForwarderOptions
  readonly #questions: Questions
  readonly #udp: UdpSocket = createSocket('udp4')
  readonly #tcp: TcpServer = createServer()
  readonly #tcpFront: TcpFront
  #open = false

  constructor(options: DnsForwarderOptions) {
    this.#options = options
    const { address, logger, resolvConfPath = '/etc/resolv.conf', upstreamPort = 53 } = options
    const { timeoutMs = TIMEOUT_MS, patienceMs = PATIENCE_MS } = options
    const upstreams = new Upstreams(resolvConfPath, [address])
    this.#questions = new Questions({ upstreams, upstreamPort, timeoutMs, patienceMs, logger })
    this.#tcpFront = new TcpFront((message, client, socket, send) => {
      const query = parseQuery(message)
      if (query === undefined) return false
      if (this.#mayAsk(client, query)) {
        return this.#questions.add(message, query, 'tcp', { client, socket, send: this.#heard(client, query, send) })
      }
      send(refusal(message, query))
      return true
    })
  }

  get port(): number {
    return this.#udp.address().port
  }

  get held(): { readonly questions: number; readonly clients: number } {
    return this.#questions.held
  }

  async listen(): Promise<void> {
    const { address, port = 53, logger } = this.#options
    this.#udp.bind(port, address)
    await once(this.#udp, 'listening')
    this.#open = true
    const problem = giveReceiveBuffer(this.#udp, RECEIVE_BUFFER_BYTES)
    if (problem !== undefined) logger.info({ err: problem }, 'dns.receive_buffer_small')
    this.#tcp.listen(this.port, address)
    await once(this.#tcp, 'listening')
    this.#udp.on('error', (error) => logger.warn({ err: error.message }, 'dns.udp_error'))
    this.#tcp.on('error', (error) => logger.warn({ err: error.message }, 'dns.tcp_error'))
    this.#udp.on('message', (message, from) => {
      const query = parseQuery(message)
      if (query === undefined) return
      const send = (answer: Buffer): void => this.#send(answer, from.port, from.address)
      if (!this.#mayAsk(from.address, query)) return send(refusal(message, query))
      const { address: client, port: socket } = from
      this.#questions.add(message, query, 'udp', { client, socket, send: this.#heard(client, query, send) })
    })
    this.#tcp.on('connection', (socket) => this.#tcpFront.accept(socket))
    logger.info({ address, port: this.port }, 'dns.listening')
  }

  async close(): Promise<void> {
    this.#questions.close()
    this.#tcpFront.close()
    if (this.#tcp.listening) await new Promise((resolve) => this.#tcp.close(resolve))
    if (!this.#open) return
    this.#open = false
    await new Promise<void>((resolve) => this.#udp.close(resolve))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #mayAsk(client: string, query: Query): boolean {
    const { mayAsk } = this.#options
    return mayAsk === undefined || mayAsk(client, questionName(query))
  }

  /** Tells the witness first: the client may use the answer at once. */
  #heard(client: string, query: Query, send: (answer: Buffer) => void): (answer: Buffer) => void {
    const { witness } = this.#options
    if (witness?.wants(client) !== true) return send
    return (answer) => {
      const addresses = answeredAddresses(answer)
      if (addresses.length > 0) witness.hear(client, questionName(query), addresses)
      send(answer)
    }
  }

  #send(answer: Buffer, port: number, address: string): void {
    // The client may be gone by now; there is nobody to tell.
    if (this.#open) this.#udp.send(answer, port, address, () => {})
  }
}
