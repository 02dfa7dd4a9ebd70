import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** For a head. One that comes slower is a client that wants to hold a connection, not to ask. */
const HEADERS_WITHIN_MS = 20_000
const LOOK_AT_CONNECTIONS_EVERY_MS = 5_000
/** A peer that has vanished is noticed even when nothing is sent: its open WebSocket would keep a capsule awake for ever. */
export const KEEPALIVE_AFTER_MS = 60_000

/** What takes requests before the API does; each method tells whether it took one. */
export interface Edge {
  readonly request: (request: IncomingMessage, response: ServerResponse) => boolean
  readonly upgrade: (request: IncomingMessage, client: Socket, head: Buffer) => boolean
}

/** The API's side of the listener. */
interface Api {
  readonly request: (request: IncomingMessage, response: ServerResponse) => void
  /** Gets `upgrade` events; does not listen. */
  readonly upgrades: Server
  readonly keepAliveMs: number
}

/** The one listener of a control plane: sends each request to the edge or to the API. */
export function createFront(edge: Edge | undefined, api: Api): Server {
  const server = createServer({
    keepAliveTimeout: api.keepAliveMs,
    headersTimeout: HEADERS_WITHIN_MS,
    requestTimeout: 0, // an upload takes as long as it takes
    connectionsCheckingInterval: LOOK_AT_CONNECTIONS_EVERY_MS,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_AFTER_MS,
  })
  // What is beyond a number is left out without a word otherwise; the size of a head has a limit of its own.
  server.maxHeadersCount = 0
  const unanswered = new WeakMap<Socket, ServerResponse>()
  const begin = (request: IncomingMessage, response: ServerResponse): void => {
    unanswered.set(request.socket, response)
    response.once('finish', () => {
      if (unanswered.get(request.socket) === response) unanswered.delete(request.socket)
    })
  }
  server.on('request', (request, response) => {
    begin(request, response)
    if (!edge?.request(request, response)) api.request(request, response)
  })
  server.on('checkContinue', (request, response) => {
    begin(request, response)
    if (edge?.request(request, response)) return
    response.writeContinue()
    api.request(request, response)
  })
  server.on('upgrade', (request, socket: Socket, head) => {
    socket.off('error', ignore).on('error', ignore) // Node has taken its own listener away; `close` follows
    inTurn(unanswered.get(socket), socket, () => {
      if (hasBody(request) || isHttp2(request)) return continueWithout(server, request, socket, head)
      if (!edge?.upgrade(request, socket, head)) api.upgrades.emit('upgrade', request, socket, head)
    })
  })
  return server
}

function ignore(): void {}

/** Another protocol takes the connection as a whole: what the client still waits for comes first, and may end it. */
function inTurn(before: ServerResponse | undefined, socket: Socket, take: () => void): void {
  if (before === undefined) {
    take()
    return
  }
  before.once('finish', () => {
    socket.setTimeout(0) // of a connection that idles between requests
    if (socket.writable) take()
  })
}

/** RFC 9113 has given this upgrade up; clients that offer it are as glad of HTTP/1.1. */
function isHttp2({ headers }: IncomingMessage): boolean {
  return /\bh2c\b/i.test(headers.upgrade ?? '')
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Ignores the wish for another protocol, as a server may (RFC 9110 §7.8): the same request without it comes in anew. */
function continueWithout(server: Server, request: IncomingMessage, socket: Socket, head: Buffer): void {
  const { method, url, httpVersion, rawHeaders } = request
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]?.toLowerCase()
    if (name === 'connection') lines.push(`Connection: ${withoutUpgrade(rawHeaders[at + 1] ?? '')}`)
    else if (name !== 'upgrade' && name !== 'http2-settings') lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`)
  }
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit('connection', socket)
}

function withoutUpgrade(connection: string): string {
  const left = connection.split(',').filter((token) => !/^\s*(?:upgrade|http2-settings)\s*$/i.test(token))
  return left.length > 0 ? left.join(',') : 'keep-alive'
}
