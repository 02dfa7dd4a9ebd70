import { once } from 'node:events'
import { chmod } from 'node:fs/promises'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { AppError, errorText, joinSockets } from '@wrenn/base'
import type { RegistryRules } from './rules.js'

const CONNECT_TIMEOUT_MS = 15_000
/** A registry that says nothing for so long is given up. */
const SILENCE_MS = 60_000
const HTTPS_PORT = 443
const HTTP_PORT = 80

/** What a fetch may take, and who is told of it. */
export interface DoorOptions {
  readonly rules: RegistryRules
  /** Of all that comes in. */
  readonly maxBytes: number
}

/**
 * The only way out of a fetch's sandbox: an HTTP proxy on a unix socket. Each connection is made to an address that was judged in the same
 * breath, so that neither a redirect, nor a token service's address, nor an answer of DNS that changes leads anywhere else.
 */
export class Door implements AsyncDisposable {
  readonly #options: DoorOptions
  readonly #server = createServer({ keepAliveTimeout: SILENCE_MS })
  readonly #sockets = new Set<Duplex>()
  /** Bytes that came in. */
  received = 0
  /** Why something was not let through, or not reached, first of all. */
  problem: AppError | undefined

  private constructor(options: DoorOptions) {
    this.#options = options
    this.#server.on('connection', (socket) => this.#keep(socket))
    this.#server.on('connect', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      this.#tunnel(request.url ?? '', socket, head).catch((error: unknown) => this.#refuse(socket, error))
    })
    this.#server.on('request', (request, response) => {
      this.#forward(request, response).catch((error: unknown) => this.#answer(response, error))
    })
  }

  /** Listens; whoever may look into the socket's folder may connect. */
  static async open(path: string, options: DoorOptions): Promise<Door> {
    const door = new Door(options)
    door.#server.listen(path)
    await once(door.#server, 'listening')
    await chmod(path, 0o666)
    return door
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.closeAllConnections()
    if (!this.#server.listening) return
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #tunnel(target: string, socket: Socket, head: Buffer): Promise<void> {
    const { host, port } = parseTarget(target, HTTPS_PORT)
    const upstream = await this.#connect(host, port)
    upstream.on('data', (chunk: Buffer) => this.#count(chunk.length))
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
    if (head.length > 0) upstream.write(head)
    joinSockets(socket, upstream)
  }

  /** What is not encrypted goes to registries of the operator's list alone, whoever sends one there. */
  async #forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = URL.canParse(request.url ?? '') ? new URL(request.url ?? '') : undefined
    if (url?.protocol !== 'http:' || !this.#options.rules.isPlain(url.host)) {
      const where = url?.host ?? 'that'
      throw new AppError('registry_refused', `${where} is spoken to by TLS alone.`)
    }
    const { host, port } = parseTarget(url.host, HTTP_PORT)
    const upstream = await this.#connect(host, port)
    const { 'proxy-connection': _, ...headers } = request.headers
    const options = { method: request.method, path: `${url.pathname}${url.search}`, headers, agent: false }
    const forwarded = httpRequest({ ...options, createConnection: () => upstream })
    forwarded.on('error', (error) => this.#answer(response, error))
    forwarded.on('response', (answer) => {
      answer.on('data', (chunk: Buffer) => this.#count(chunk.length))
      answer.on('error', () => response.destroy())
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    request.pipe(forwarded)
  }

  async #connect(host: string, port: number): Promise<Socket> {
    const address = await this.#options.rules.address(host, port)
    const socket = connect({ host: address, port, allowHalfOpen: true })
    this.#keep(socket)
    const silent = new AppError('registry_unavailable', `${host} does not answer.`)
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => socket.destroy(silent))
    await once(socket, 'connect')
    socket.setTimeout(SILENCE_MS)
    return socket
  }

  #count(bytes: number): void {
    this.received += bytes
    if (this.received <= this.#options.maxBytes) return
    this.#note(new AppError('image_not_usable', 'Its registry sends more than its manifest says.'))
    for (const socket of this.#sockets) socket.destroy()
  }

  #keep(socket: Duplex): void {
    this.#sockets.add(socket)
    socket.on('error', () => {}) // its end is what counts
    socket.once('close', () => this.#sockets.delete(socket))
  }

  #refuse(socket: Socket, error: unknown): void {
    this.#note(asProblem(error))
    socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
  }

  #answer(response: ServerResponse, error: unknown): void {
    this.#note(asProblem(error))
    if (response.headersSent) response.destroy()
    else response.writeHead(403, { connection: 'close' }).end()
  }

  #note(problem: AppError): void {
    this.problem ??= problem
  }
}

function asProblem(error: unknown): AppError {
  if (error instanceof AppError) return error
  return new AppError('registry_unavailable', `The registry cannot be reached: ${errorText(error)}.`, { cause: error })
}

function parseTarget(text: string, defaultPort: number): { readonly host: string; readonly port: number } {
  const [, host = '', port] = /^([^:]+)(?::(\d{1,5}))?$/.exec(text) ?? []
  const number = port === undefined ? defaultPort : Number(port)
  if (host !== '' && number > 0 && number < 65_536) return { host, port: number }
  throw new AppError('registry_refused', 'Images are fetched from IPv4 addresses alone.')
}
