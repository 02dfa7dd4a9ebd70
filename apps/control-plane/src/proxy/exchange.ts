import type { Agent, ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { AppError, breakOff, isErrno } from '@wrenn/base'
import type { Destination } from './destination.js'
import { isExpecting } from './framing.js'
import {
  headersForClient,
  headersForService,
  type RawHeaders,
  trailersForClient,
  trailersForService,
} from './headers.js'
import type { ServiceConnections } from './service-connections.js'

/** How requests reach a service. */
export interface Line {
  /** Connections that are kept. */
  readonly agent: Agent
  /** The same for requests without a body, which are most. */
  readonly kept: ServiceConnections
  /** A connection of its own, unless whoever asks has left by then. */
  readonly connect: (destination: Destination, left: AbortSignal) => Promise<Socket>
}

/** Is aborted when a client goes before it has its answer. */
export function leaving(client: ServerResponse | Socket): AbortSignal {
  const left = new AbortController()
  if (client.destroyed) left.abort()
  client.once('close', () => {
    if (!client.writableFinished) left.abort()
  })
  return left.signal
}

/** The request as the service gets it, but for the connection it takes. */
export function asked(request: IncomingMessage, { capsuleId, port, path, withheld }: Destination) {
  const { method = 'GET' } = request
  const all = headersForService(request, withheld)
  const headers = request.headers['transfer-encoding'] === undefined ? withoutTrailer(all) : all
  return { host: capsuleId, port, path, method, headers, setHost: false } as const
}

/** Writes the head of an answer. Node throws where trailers are announced and none can come; a service may announce them for others. */
export function passHead(response: ServerResponse, status: number, message: string, headers: RawHeaders): void {
  response.sendDate = false
  response.writeHead(status, message, canHaveTrailers(response, status, headers) ? headers : withoutTrailer(headers))
}

function canHaveTrailers({ req }: ServerResponse, status: number, headers: RawHeaders): boolean {
  const isWhole = req.method === 'HEAD' || status === 204 || status === 304 || req.httpVersion === '1.0'
  return !isWhole && indexOf(headers, 'content-length') < 0
}

/** The same list where there is none, as in nearly all. */
function withoutTrailer(headers: RawHeaders): RawHeaders {
  const at = indexOf(headers, 'trailer')
  return at < 0 ? headers : withoutTrailer(headers.toSpliced(at, 2))
}

/** @param name in lower case */
function indexOf(headers: RawHeaders, name: string): number {
  return headers.findIndex((each, at) => at % 2 === 0 && each.length === name.length && each.toLowerCase() === name)
}

/** Sends the head with the first bytes of the body where these are here already, which spares a packet, and else alone. */
export function passHeadSoon(response: ServerResponse, hasBody: () => boolean): void {
  setImmediate(() => {
    if (!hasBody() && !response.writableEnded && !response.destroyed) response.flushHeaders()
  })
}

/** Ends an answer that came whole. */
export function endAnswer(response: ServerResponse, answer: Pick<IncomingMessage, 'rawTrailers'>): void {
  const trailers = trailersForClient(answer)
  if (trailers.length > 0 && response.chunkedEncoding) response.addTrailers(trailers)
  response.end()
}

/** Has the client see that what it got of an answer is not all. */
export function breakOffAnswer(response: ServerResponse): void {
  if (response.socket === null) response.destroy()
  else breakOff(response.socket)
}

/** A kept connection had ended while the request was on its way to it. */
export class StaleConnection extends Error {}

/** Resolves when the service begins to answer. */
export function exchange(
  request: IncomingMessage,
  response: ServerResponse,
  destination: Destination,
  toService: ClientRequest,
  hasBody: boolean,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let isContinued = !isExpecting(request)
    const leave = (): void => {
      if (!response.writableFinished) toService.destroy()
    }
    response.once('close', leave)
    toService.once('error', (error) => {
      response.off('close', leave)
      const isStale = toService.reusedSocket && isErrno(error, 'ECONNRESET', 'EPIPE')
      reject(isStale ? new StaleConnection() : error)
    })
    toService.on('continue', () => {
      // A service may say so unasked; who did not ask may take it for the answer.
      if (isExpecting(request)) response.writeContinue()
      isContinued = true
    })
    toService.once('response', (answer) => {
      toService.on('error', () => answer.destroy())
      // Whether the client still sends what nobody asked it for is anybody's guess.
      if (!isContinued && !request.complete) response.shouldKeepAlive = false
      try {
        destination.onAnswer?.(answer)
        passBack(answer, response, destination)
        resolve()
      } catch (error) {
        toService.destroy()
        reject(error)
      }
      answer.once('end', () => {
        if (toService.writableFinished) return
        // It has said all it has to say, and does not want the rest.
        request.unpipe(toService)
        request.resume()
        toService.destroy()
      })
    })
    if (hasBody) passBody(request, toService)
    else toService.end()
  })
}

function passBody(request: IncomingMessage, toService: ClientRequest): void {
  request.pipe(toService, { end: false })
  request.once('end', () => {
    if (toService.destroyed) return
    const trailers = trailersForService(request)
    if (trailers.length > 0) toService.addTrailers(trailers)
    toService.end()
  })
}

/** @throws TypeError, RangeError for a head that cannot be passed on */
function passBack(answer: IncomingMessage, response: ServerResponse, destination: Destination): void {
  const { statusCode = 502, statusMessage = '' } = answer
  passHead(response, statusCode, statusMessage, headersForClient(answer, destination))
  passHeadSoon(response, () => answer.readableDidRead)
  const broken = (): void => {
    if (!answer.complete) breakOffAnswer(response)
  }
  answer.once('error', broken)
  answer.once('close', broken)
  answer.once('end', () => endAnswer(response, answer))
  answer.pipe(response, { end: false })
}

export function noAnswer(thrown: unknown): AppError {
  if (AppError.is(thrown)) return thrown
  return new AppError('guest_error', 'The service broke off before it had answered, or its answer is no HTTP.', {
    cause: thrown,
  })
}
