import { randomBytes } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { TLSSocket } from 'node:tls'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'
import { errorBody } from '../http/errors.js'
import type { Destination, RequestHead } from './destination.js'
import type { Line } from './exchange.js'
import { headersForClient, headersForService, trailersForClient, trailersForService } from './headers.js'
import type { Wording } from './sandbox-words.js'

/** Requests of one connection at a time; clients with more open another one. */
const STREAMS_AT_ONCE = 256
/** Of a connection without requests; clients of gRPC open the next one by themselves. */
const IDLE_MS = 10 * 60_000
const { NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_FLAG_END_STREAM } = constants

type RawHeaders = readonly string[]

/** A request on an HTTP/2 connection. */
export interface Http2Request {
  readonly head: RequestHead
  readonly stream: ServerHttp2Stream
  /** Of the client's connection: to the services that it asks. */
  readonly sessions: ServiceSessions
}

/**
 * Speaks HTTP/2 on a connection that has agreed on it, and hands out its requests. gRPC needs it all the way: its outcome is in trailers,
 * and both sides send at once.
 */
export function serveHttp2(
  socket: TLSSocket,
  line: Line,
  onRequest: (request: Http2Request) => void,
): ServerHttp2Session {
  const session = performServerHandshake(socket, {
    settings: { maxConcurrentStreams: STREAMS_AT_ONCE, enableConnectProtocol: false },
  })
  const sessions = new ServiceSessions(line)
  let open = 0
  let idle = closeWhenIdle(session)
  session.on('stream', (stream, headers) => {
    clearTimeout(idle)
    open++
    stream.on('error', () => {}) // `close` follows
    stream.once('close', () => {
      open--
      if (open === 0 && !session.closed) idle = closeWhenIdle(session)
    })
    onRequest({ head: headOf(headers, socket), stream, sessions })
  })
  session.on('error', () => {}) // `close` follows
  session.once('close', () => {
    clearTimeout(idle)
    sessions.close()
  })
  // Of a connection that is given away, nobody else ends what is left.
  socket.once('close', () => session.destroy())
  return session
}

function closeWhenIdle(session: ServerHttp2Session): NodeJS.Timeout {
  return setTimeout(() => session.close(), IDLE_MS).unref()
}

/** The same as of HTTP/1.1: `:authority` is its `Host`. */
function headOf({ host, ...headers }: IncomingHttpHeaders, socket: TLSSocket): RequestHead {
  const { ':authority': authority = host ?? '', ':path': url = '', ':method': method = '' } = headers
  // RFC 9113 §8.3.1: both may be there, and are the same then.
  const hosts = host === undefined || host === authority ? [authority] : [authority, host]
  const rawHeaders = [...hosts.flatMap((each) => ['Host', each]), ...flat(headers)]
  return { headers: { ...headers, host: authority }, rawHeaders, method, url, httpVersion: '2.0', socket }
}

/** HTTP/2 connections to services, for as long as the client's connection lives: one to each port. */
export class ServiceSessions {
  readonly #line: Line
  readonly #sessions = new Map<string, Promise<ClientHttp2Session>>()
  readonly #left = new AbortController()

  constructor(line: Line) {
    this.#line = line
    setMaxListeners(0, this.#left.signal) // one for each port that is being reached
  }

  /** @throws AppError as the line does */
  async get(destination: Destination): Promise<ClientHttp2Session> {
    const key = `${destination.capsuleId}:${destination.port}`
    for (;;) {
      const kept = this.#sessions.get(key)
      if (kept === undefined) break
      const session = await kept
      if (!session.closed && !session.destroyed) return session
      if (this.#sessions.get(key) === kept) this.#sessions.delete(key)
    }
    // Nothing is waited for between the look and this: who comes meanwhile finds it.
    const opening = this.#open(destination)
    this.#sessions.set(key, opening)
    const forget = (): void => {
      if (this.#sessions.get(key) === opening) this.#sessions.delete(key)
    }
    opening.then((session) => session.once('close', forget).once('goaway', forget), forget)
    return await opening
  }

  async #open(destination: Destination): Promise<ClientHttp2Session> {
    const socket = await this.#line.connect(destination, this.#left.signal)
    // A service that ends its side has left.
    socket.allowHalfOpen = false
    // The name is for Node alone: each request says its own.
    const session = connect('http://service', { createConnection: () => socket, settings: { enablePush: false } })
    session.on('error', () => {}) // its requests fail, and tell
    // A service that pushes although it may not.
    session.on('stream', (pushed) => pushed.on('error', () => {}).close(NGHTTP2_CANCEL))
    const leave = (): void => session.destroy()
    if (this.#left.signal.aborted) leave()
    this.#left.signal.addEventListener('abort', leave, { once: true })
    session.once('close', () => this.#left.signal.removeEventListener('abort', leave))
    return session
  }

  close(): void {
    this.#left.abort()
  }
}

/**
 * Passes a request to its service and the answer back, both bodies at the pace of their readers. Resolves when the service begins to answer.
 * @throws AppError when there is no answer; nothing has been sent to the client then
 */
export async function forwardStream({ head, stream, sessions }: Http2Request, destination: Destination): Promise<void> {
  const session = await sessions.get(destination)
  if (isOver(stream)) return
  const toService = session.request(outgoing(head, destination), {
    endStream: stream.endAfterHeaders,
    waitForTrailers: true,
  })
  stream.once('close', () => {
    if (!toService.closed) toService.close(stream.rstCode === NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : stream.rstCode)
  })
  toService.once('continue', () => {
    if (!stream.headersSent && !isOver(stream)) stream.additionalHeaders({ ':status': 100 })
  })
  if (!stream.endAfterHeaders) passTrailers(stream, toService, (rawTrailers) => trailersForService({ rawTrailers }))
  if (!stream.endAfterHeaders) stream.pipe(toService)
  await answered(toService, stream, destination)
}

function answered(toService: ClientHttp2Stream, stream: ServerHttp2Stream, destination: Destination): Promise<void> {
  return new Promise((resolve, reject) => {
    let isAnswered = false
    toService.on('error', (cause) => {
      if (!isAnswered) reject(noStream(cause)) // else `close` follows
    })
    toService.once('close', () => {
      if (!isAnswered) reject(noStream(undefined))
      else if (!isOver(stream) && toService.rstCode !== NGHTTP2_NO_ERROR) stream.close(toService.rstCode)
    })
    toService.once('response', (headers, flags) => {
      if (isOver(stream)) return resolve()
      isAnswered = true
      const answer = {
        ':status': headers[':status'] ?? 502,
        ...collected(headersForClient({ rawHeaders: flat(headers) }, destination)),
      }
      try {
        if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) stream.respond(answer, { endStream: true })
        else {
          stream.respond(answer, { waitForTrailers: true })
          passTrailers(toService, stream, (rawTrailers) => trailersForClient({ rawTrailers }))
          toService.pipe(stream)
        }
        resolve()
      } catch (cause) {
        toService.close(NGHTTP2_CANCEL)
        reject(noStream(cause))
      }
    })
  })
}

type TrailerFilter = (rawTrailers: string[]) => readonly [string, string][]

/** Whether a client has left its request, or got its answer; Node throws where something is said on it afterwards. */
function isOver(stream: ServerHttp2Stream): boolean {
  return stream.closed || stream.destroyed
}

function passTrailers(
  from: ServerHttp2Stream | ClientHttp2Stream,
  to: ServerHttp2Stream | ClientHttp2Stream,
  filter: TrailerFilter,
): void {
  let trailers: OutgoingHttpHeaders = {}
  from.once('trailers', (headers: IncomingHttpHeaders) => {
    trailers = collected(filter(flat(headers)).flat())
  })
  to.once('wantTrailers', () => {
    if (!to.closed && !to.destroyed) to.sendTrailers(trailers)
  })
}

function outgoing(head: RequestHead, { path, withheld }: Destination): OutgoingHttpHeaders {
  const { host: authority, ...headers } = collected(headersForService(head, withheld))
  return { ':method': head.method, ':scheme': 'http', ':authority': authority, ':path': path, ...headers }
}

/** Names and values in turn, without those that begin with a colon. */
function flat(headers: IncomingHttpHeaders): string[] {
  return Object.entries(headers).flatMap(([name, value]) => {
    if (name.startsWith(':') || value === undefined) return []
    return [value].flat().flatMap((each) => [name, each])
  })
}

/** Names in lower case, those that came several times as lists. */
function collected(raw: RawHeaders): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = {}
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const [name, value] = [raw[at]?.toLowerCase() ?? '', raw[at + 1] ?? '']
    const before = headers[name]
    headers[name] = before === undefined ? value : [before, value].flat()
  }
  return headers
}

function noStream(cause: unknown): AppError {
  const message = 'The service broke off before it had answered, or does not speak HTTP/2 without TLS.'
  return AppError.is(cause) ? cause : new AppError('guest_error', message, { cause })
}

/** How gRPC calls what is wrong: https://grpc.io/docs/guides/status-codes/ */
const grpcStatuses: Readonly<Record<string, number>> = {
  invalid_request: 3,
  capsule_not_found: 5,
  capsule_ended: 5,
  not_found: 5,
  forbidden: 7,
  limit_exceeded: 8,
  invalid_state: 9,
  not_supported: 12,
  internal: 13,
  unauthorized: 16,
}
const GRPC_UNAVAILABLE = 14

/** What is no printable ASCII, and the percent sign, is written as bytes of UTF-8. */
function encoded(message: string): string {
  return message.replaceAll(/[^\x20-\x24\x26-\x7e]+/g, encodeURIComponent)
}

/** Answers in place of a service: a status of gRPC for its clients, the API's JSON for others, or the words of the clients that the capsule is for. */
export function refuseStream({ head, stream }: Http2Request, error: AppError, words?: Wording): void {
  if (isOver(stream)) return
  if (stream.headersSent) return void stream.close(NGHTTP2_INTERNAL_ERROR)
  const marked = { [ERROR_CODE_HEADER]: error.code, 'cache-control': 'no-store' }
  if (/^application\/grpc\b/i.test(head.headers['content-type'] ?? '')) {
    const grpcStatus = grpcStatuses[error.code] ?? GRPC_UNAVAILABLE
    const told = { 'grpc-status': String(grpcStatus), 'grpc-message': encoded(error.message) }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...told, ...marked }, { endStream: true })
  } else {
    const { status, body } = words ?? {
      status: errorKind(error.code).status,
      body: errorBody(error, `req-${randomBytes(8).toString('hex')}`),
    }
    stream.respond({ ':status': status, 'content-type': 'application/json; charset=utf-8', ...marked })
    stream.end(head.method === 'HEAD' ? undefined : JSON.stringify(body))
  }
  // What is still to come of the request is of no use to anybody.
  stream.resume().once('finish', () => stream.close(NGHTTP2_NO_ERROR))
}
