import { Agent, createServer, type IncomingMessage, request, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect, createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
import { breakOff, errorText, parseHostName } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'
import { requestHeaders, responseHeaders } from './edge-headers.js'
import { Issuer } from './issuer.js'

const HANDSHAKE_TIMEOUT_MS = 10_000
/** The one protocol that is spoken with both sides. */
const ALPN = ['http/1.1']
/** Requests that a client may have sent before their answers: each takes memory of all capsules' filter. */
const MAXIMUM_PIPELINED = 16
const HOST = /^([^:@[\]]+)(?::\d{1,5})?$/

interface EdgeOptions {
  /** Whose certificates servers may have, as PEM. */
  readonly ca: readonly string[]
}

interface Terminated {
  readonly name: string
  /** Who speaks for the host toward the guest. */
  readonly authority: Credentials
  /** What is set in its requests, as it is now; nothing when no rule has the host any more. */
  readonly headers: () => Readonly<Record<string, string>> | undefined
  /** A connection to the host, by the policy; nothing when there is none. */
  readonly connect: () => Promise<Socket | undefined>
}

/** A client's connection with what it needs. */
interface Session extends Terminated {
  readonly agent: Agent
  /** Requests without a whole answer. */
  open: number
}

/**
 * The end of a guest's TLS for hosts that have rules: each request is passed on by TLS that is verified, with the headers of the rule. One
 * connection of the guest is one to the host, and they end together.
 */
export class Edge {
  readonly #trusted: SecureContext
  readonly #issuer = new Issuer()
  readonly #server: Server
  readonly #sessions = new WeakMap<Duplex, Session>()

  constructor(options: EdgeOptions) {
    this.#trusted = createSecureContext({ ca: options.ca.filter((pem) => pem !== ''), minVersion: 'TLSv1.2' })
    this.#server = createServer({ keepAliveTimeout: 0, requestTimeout: 0 })
    this.#server.timeout = 0
    this.#server.on('request', (incoming, response) => {
      guarded(incoming.socket, () => this.#forward(incoming, response, false))
    })
    this.#server.on('checkContinue', (incoming, response) => {
      guarded(incoming.socket, () => this.#forward(incoming, response, true))
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
    const agent = this.#agentFor(terminated, guest)
    guest.on('error', () => breakOff(client))
    guest.once('close', () => {
      clearTimeout(timer)
      agent.destroy()
    })
    guest.once('secure', () => {
      clearTimeout(timer)
      this.#sessions.set(guest, { ...terminated, agent, open: 0 })
      this.#server.emit('connection', guest)
    })
  }

  /** Connects to the host as often as the guest's connection needs it, which is once: what follows the end of the one ends the other. */
  #agentFor({ name, connect: open }: Terminated, guest: TLSSocket): Agent {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const make = async (): Promise<TLSSocket> => {
      const socket = await open()
      if (socket === undefined) throw new Error(`${name} cannot be reached`)
      const server = await secure(socket, { servername: name, secureContext: this.#trusted, ALPNProtocols: ALPN })
      server.once('close', () => guest.end())
      return server
    }
    const createConnection: Agent['createConnection'] = (_options, callback) => {
      make().then(
        (socket) => callback?.(null, socket),
        (error: unknown) => callback?.(error instanceof Error ? error : new Error(String(error)), undefined as never),
      )
      return undefined
    }
    return Object.assign(agent, { createConnection })
  }

  #forward(incoming: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const session = this.#sessions.get(incoming.socket)
    const set = session?.headers()
    if (session === undefined || set === undefined || session.open >= MAXIMUM_PIPELINED) {
      incoming.socket.destroy()
      return
    }
    session.open += 1
    response.once('close', () => {
      session.open -= 1
    })
    const refusal = refusalOf(incoming, session.name)
    if (refusal !== undefined) {
      answer(response, refusal.status, refusal.text)
      return
    }
    const chunked =
      incoming.headers['transfer-encoding'] === undefined ? [] : [['Transfer-Encoding', 'chunked'] as const]
    const onward = request({
      agent: session.agent,
      method: incoming.method,
      path: incoming.url,
      headers: requestHeaders(incoming.rawHeaders, set, chunked) as never,
      setHost: false,
    })
    onward.on('continue', () => expectsContinue && response.writeContinue())
    onward.on('response', (from) => {
      from.on('error', () => incoming.socket.destroy())
      from.on('aborted', () => incoming.socket.destroy())
      guarded(incoming.socket, () => {
        response.writeHead(from.statusCode ?? 502, from.statusMessage, responseHeaders(from.rawHeaders))
        from.pipe(response)
      })
    })
    onward.on('error', (error) => fail(response, session.name, error))
    response.on('close', () => response.writableFinished || onward.destroy())
    incoming.on('error', () => onward.destroy())
    incoming.pipe(onward)
    if (expectsContinue) onward.flushHeaders()
  }

  #upgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): void {
    const session = this.#sessions.get(socket)
    const response = new ServerResponse(incoming)
    const set = session?.headers()
    if (session === undefined || set === undefined || session.open > 0) {
      socket.destroy()
      return
    }
    socket.on('error', () => socket.destroy())
    response.assignSocket(incoming.socket)
    response.on('finish', () => socket.end())
    const isWebSocket = incoming.headers.upgrade?.toLowerCase() === 'websocket'
    const noOther = { status: 400, text: 'Only WebSocket may be asked for.' }
    const refusal = isWebSocket ? refusalOf(incoming, session.name) : noOther
    if (refusal !== undefined) {
      answer(response, refusal.status, refusal.text)
      return
    }
    const asked = [
      ['Connection', 'Upgrade'],
      ['Upgrade', 'websocket'],
    ] as const
    const onward = request({
      agent: session.agent,
      method: incoming.method,
      path: incoming.url,
      headers: requestHeaders(incoming.rawHeaders, set, asked) as never,
      setHost: false,
    })
    socket.once('close', () => onward.destroy())
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
    onward.on('response', (from) => {
      from.on('error', () => socket.destroy())
      guarded(socket, () => {
        response.writeHead(from.statusCode ?? 502, from.statusMessage, responseHeaders(from.rawHeaders))
        from.pipe(response)
      })
    })
    onward.on('error', (error) => fail(response, session.name, error))
    onward.end()
  }
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
function refusalOf(
  { headers, method, url = '' }: IncomingMessage,
  name: string,
): { readonly status: number; readonly text: string } | undefined {
  const host = HOST.exec(headers.host ?? '')?.[1]
  const isSame = host !== undefined && parseHostName(host) === name
  if (!isSame) return { status: 421, text: `The request is not for ${name}, for which the connection was made.` }
  if (method === 'TRACE') return { status: 405, text: 'TRACE is not passed on.' }
  return url.startsWith('/') || url === '*' ? undefined : { status: 421, text: 'The target must be a path.' }
}

async function secure(socket: Socket, options: ConnectionOptions): Promise<TLSSocket> {
  return await new Promise((resolve, reject) => {
    const server = connect({ ...options, socket, rejectUnauthorized: true })
    const timer = setTimeout(() => server.destroy(new Error('TLS takes too long')), HANDSHAKE_TIMEOUT_MS)
    const onError = (error: Error): void => {
      clearTimeout(timer)
      breakOff(socket)
      reject(error)
    }
    server.once('error', onError)
    server.once('secureConnect', () => {
      clearTimeout(timer)
      server.off('error', onError)
      resolve(server)
    })
  })
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
