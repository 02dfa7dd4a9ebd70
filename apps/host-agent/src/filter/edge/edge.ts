import { type ClientRequest, createServer, type IncomingMessage, request, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
import { breakOff, errorText, parseHostName } from '@wrenn/base'
import { requestHeaders, responseHeaders } from './edge-headers.js'
import { Issuer } from './issuer.js'
import { ALPN, type EdgeTimes, HANDSHAKE_TIMEOUT_MS, Session, type Terminated } from './session.js'

const TIMES: EdgeTimes = { waitMs: 120_000, lingerMs: 120_000 }
const HOST = /^([^:@[\]]+)(?::\d{1,5})?$/

interface EdgeOptions {
  /** Whose certificates servers may have, as PEM. */
  readonly ca: readonly string[]
  /** @default 2 min each */
  readonly times?: EdgeTimes | undefined
}

/**
 * The end of a guest's TLS for hosts that have rules: each request is passed on by TLS that is verified, with the headers of the rule. One
 * connection of the guest is one to the host, and they end together.
 */
export class Edge {
  readonly #trusted: SecureContext
  readonly #times: EdgeTimes
  readonly #issuer = new Issuer()
  readonly #server: Server
  readonly #sessions = new WeakMap<Duplex, Session>()

  constructor(options: EdgeOptions) {
    this.#trusted = createSecureContext({ ca: options.ca.filter((pem) => pem !== ''), minVersion: 'TLSv1.2' })
    this.#times = options.times ?? TIMES
    this.#server = createServer({ keepAliveTimeout: 0, requestTimeout: 0 })
    this.#server.timeout = 0
    this.#server.on('request', (incoming, response) => {
      guarded(incoming.socket, () => this.#take(incoming, response, false))
    })
    this.#server.on('checkContinue', (incoming, response) => {
      guarded(incoming.socket, () => this.#take(incoming, response, true))
    })
    this.#server.on('upgrade', (incoming, socket, head) => {
      guarded(socket, () => this.#upgrade(incoming, socket, head))
    })
    this.#server.on('clientError', (_error, socket) => socket.destroy())
  }

  /** Owns the guest's socket from then on, which has its TLS hello still to be read. */
  async serve(client: Socket, terminated: Terminated): Promise<void> {
    const { authority, name } = terminated
    const secureContext = await this.#issuer.contextFor(authority, name)
    if (client.destroyed) return
    const guest = new TLSSocket(client, { isServer: true, secureContext, ALPNProtocols: ALPN })
    const timer = setTimeout(() => breakOff(client), HANDSHAKE_TIMEOUT_MS)
    guest.on('error', () => breakOff(client))
    guest.once('close', () => clearTimeout(timer))
    guest.once('secure', () => {
      clearTimeout(timer)
      const session = new Session({ ...terminated, guest, client, trusted: this.#trusted, times: this.#times })
      this.#sessions.set(guest, session)
      this.#server.emit('connection', guest)
    })
  }

  #take(incoming: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const session = this.#sessions.get(incoming.socket)
    const begin = (): void => {
      guarded(incoming.socket, () => session && this.#forward(session, incoming, response, expectsContinue))
    }
    if (session === undefined) incoming.socket.destroy()
    else session.take(response, begin)
  }

  #forward(session: Session, incoming: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const set = session.headers()
    if (set === undefined) {
      incoming.socket.destroy()
      return
    }
    const refusal = refusalOf(incoming, session.name)
    if (refusal !== undefined) {
      answer(response, refusal.status, refusal.text)
      return
    }
    const chunked =
      incoming.headers['transfer-encoding'] === undefined ? [] : [['Transfer-Encoding', 'chunked'] as const]
    const onward = passOn(session, { incoming, response, headers: requestHeaders(incoming.rawHeaders, set, chunked) })
    onward.on('continue', () => expectsContinue && response.writeContinue())
    response.on('close', () => response.writableFinished || onward.destroy())
    incoming.on('error', () => onward.destroy())
    incoming.pipe(onward)
    if (expectsContinue) onward.flushHeaders()
  }

  #upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): void {
    const session = this.#sessions.get(socket)
    const response = new ServerResponse(incoming)
    const set = session?.headers()
    if (session === undefined || set === undefined || !session.isIdle) {
      socket.destroy()
      return
    }
    session.detach()
    socket.on('error', () => socket.destroy())
    response.assignSocket(incoming.socket)
    response.on('finish', () => session.end())
    const isWebSocket = incoming.headers.upgrade?.toLowerCase() === 'websocket'
    const noOther = { status: 400, text: 'Only WebSocket may be asked for.' }
    const refusal = isWebSocket ? (refusalOf(incoming, session.name) ?? bodyOf(incoming)) : noOther
    if (refusal !== undefined) {
      answer(response, refusal.status, refusal.text)
      return
    }
    const asked = [
      ['Connection', 'Upgrade'],
      ['Upgrade', 'websocket'],
    ] as const
    const onward = passOn(session, { incoming, response, headers: requestHeaders(incoming.rawHeaders, set, asked) })
    onward.on('upgrade', (from, server, first) => {
      response.detachSocket(incoming.socket)
      const lines = Array.from({ length: from.rawHeaders.length / 2 }, (_, index) => {
        return `${from.rawHeaders[index * 2]}: ${from.rawHeaders[index * 2 + 1]}\r\n`
      })
      socket.write(`HTTP/1.1 101 ${from.statusMessage}\r\n${lines.join('')}\r\n`)
      socket.write(first)
      server.write(head)
      server.on('error', () => socket.destroy())
      server.once('close', () => socket.end())
      socket.once('close', () => server.destroy())
      server.pipe(socket)
      socket.pipe(server)
    })
    onward.end()
  }
}

interface Passing {
  readonly incoming: IncomingMessage
  readonly response: ServerResponse
  readonly headers: ReturnType<typeof requestHeaders>
}

/** Asks the host what the guest has asked, and passes its answer back. What breaks off in the middle ends the guest's connection. */
function passOn(session: Session, { incoming, response, headers }: Passing): ClientRequest {
  const { method, url: path, socket } = incoming
  const onward = request({ agent: session.agent, method, path, headers: headers as never, setHost: false })
  session.follow(onward)
  onward.on('response', (from) => {
    from.on('error', () => socket.destroy())
    from.on('aborted', () => socket.destroy())
    guarded(socket, () => {
      response.writeHead(from.statusCode ?? 502, from.statusMessage, responseHeaders(from.rawHeaders))
      from.pipe(response)
    })
  })
  onward.on('error', (error) => fail(response, session.name, error))
  return onward
}

interface Refusal {
  readonly status: number
  readonly text: string
}

/** What one side has sent and the other cannot be told ends that connection, and not the filter of all. */
function guarded(socket: Duplex, pass: () => void): void {
  try {
    pass()
  } catch {
    socket.destroy()
  }
}

/**
 * What is inside the TLS must be for the name outside, or a token of one host would go to another of the same server. The answer to
 * TRACE is the request, and the token with it (RFC 9110 §9.3.8).
 */
function refusalOf({ headersDistinct, method, url = '' }: IncomingMessage, name: string): Refusal | undefined {
  const hosts = headersDistinct.host ?? []
  // All of them would go on, and which one counts would be the host's choice (RFC 9112 §3.2).
  if (hosts.length !== 1) return { status: 400, text: 'A request has one Host.' }
  const host = HOST.exec(hosts[0] ?? '')?.[1]
  const isSame = host !== undefined && parseHostName(host) === name
  if (!isSame) return { status: 421, text: `The request is not for ${name}, for which the connection was made.` }
  if (method === 'TRACE') return { status: 405, text: 'TRACE is not passed on.' }
  return url.startsWith('/') || url === '*' ? undefined : { status: 421, text: 'The target must be a path.' }
}

/** What asks for another protocol ends with its head: a body would be the first of that, or be waited for in vain. */
function bodyOf({ headers }: IncomingMessage): Refusal | undefined {
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0
  return hasBody ? { status: 400, text: 'What asks for a WebSocket has no body.' } : undefined
}

/** Of an error nothing is told but what it is: it says nothing of the request. */
function fail(response: ServerResponse, name: string, error: Error): void {
  if (response.headersSent) response.destroy()
  else answer(response, 502, `${name} does not answer: ${errorText(error)}.`)
}

function answer(response: ServerResponse, status: number, text: string): void {
  const body = `${text}\n`
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'x-wrenn-edge': 'refused',
    connection: 'close',
  })
  response.end(body)
}
