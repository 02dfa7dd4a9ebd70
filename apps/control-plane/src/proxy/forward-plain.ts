import { request as ask, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { AnswerHead } from './answer-head.js'
import type { Destination } from './destination.js'
import {
  breakOffAnswer,
  endAnswer,
  exchange,
  type Line,
  leaving,
  noAnswer,
  passHead,
  passHeadSoon,
  StaleConnection,
} from './exchange.js'
import { isExpecting } from './framing.js'
import { headersForClient } from './headers.js'
import { replayed } from './replayed.js'
import { requestHead } from './request-head.js'
import type { AnswerReader, ServiceConnection } from './service-connection.js'

/** Without a body, and safe to ask again when a kept connection had ended (RFC 9110 §9.2.2). */
const METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'DELETE'])
/** A body up to it is sent in one piece with its head, which spares copying both anew or handing the system two pieces. */
const SMALL_BODY_BYTES = 8 * 1024

const KEEP_ALIVE = 'Connection: keep-alive\r\n'

/** Whether a request that has no body may go by {@link forwardPlain}. */
export function isPlain(request: IncomingMessage, { onAnswer }: Destination): boolean {
  return METHODS.has(request.method ?? '') && onAnswer === undefined && !isExpecting(request)
}

/** Does what `forward` does, for {@link isPlain} requests. @throws AppError as `forward` */
export async function forwardPlain(
  request: IncomingMessage,
  response: ServerResponse,
  destination: Destination,
  { kept }: Line,
): Promise<void> {
  const head = requestHead(request, destination, KEEP_ALIVE)
  const passOver = async (connection: ServiceConnection): Promise<void> => {
    if (response.destroyed) return connection.destroy()
    await new Promise<void>((resolve, reject) => {
      const passing = new Passing(request, response, destination, connection, { resolve, reject })
      connection.ask(head, passing)
    })
  }
  try {
    await passOver(kept.take(destination) ?? (await kept.open(destination, leaving(response))))
  } catch (error) {
    if (response.destroyed) return
    if (!(error instanceof StaleConnection)) throw noAnswer(error)
    const again = await kept.open(destination, leaving(response))
    await passOver(again).catch((second: unknown) => {
      throw noAnswer(second)
    })
  }
}

interface Settling {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** Passes an answer to the client as it comes. */
class Passing implements AnswerReader {
  readonly #request: IncomingMessage
  readonly #response: ServerResponse
  readonly #destination: Destination
  readonly #connection: ServiceConnection
  readonly #settling: Settling
  readonly #wasReused: boolean
  #hasBegun = false
  /** Whether any of the body was. */
  #hasPassed = false
  #isPaused = false

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    destination: Destination,
    connection: ServiceConnection,
    settling: Settling,
  ) {
    this.#request = request
    this.#response = response
    this.#destination = destination
    this.#connection = connection
    this.#settling = settling
    this.#wasReused = connection.isReused
    response.once('close', this.#leave)
  }

  get method(): string | undefined {
    return this.#request.method
  }

  onWhole(head: AnswerHead, body: Buffer): void {
    if (!this.#begin(head)) return
    if (body.length === 0) this.#response.end()
    else if (body.length <= SMALL_BODY_BYTES) endInOnePiece(this.#response, body.toString('latin1'))
    else this.#response.end(body)
  }

  onHead(head: AnswerHead): void {
    if (!this.#begin(head)) return
    passHeadSoon(this.#response, () => this.#hasPassed)
  }

  onPart(part: Buffer): void {
    this.#hasPassed = true
    if (this.#response.write(part) || this.#isPaused) return
    this.#isPaused = true
    this.#connection.pause()
    this.#response.once('drain', () => {
      this.#isPaused = false
      this.#connection.resume(this)
    })
  }

  onEnd(rawTrailers: string[]): void {
    endAnswer(this.#response, { rawTrailers })
  }

  onBroken(hasAnswered: boolean): void {
    if (this.#hasBegun) {
      breakOffAnswer(this.#response)
      return
    }
    this.#response.off('close', this.#leave)
    const isStale = this.#wasReused && !hasAnswered
    this.#settling.reject(isStale ? new StaleConnection() : new Error('The connection ended before an answer.'))
  }

  onUnusual(socket: Socket, seen: Buffer): void {
    this.#response.off('close', this.#leave)
    const [request, response, destination] = [this.#request, this.#response, this.#destination]
    // What it says is sent nowhere; of the request's own words Node might refuse some, and throw.
    const again = ask({ method: request.method ?? 'GET', createConnection: () => replayed(socket, seen) })
    exchange(request, response, destination, again, false).then(this.#settling.resolve, this.#settling.reject)
  }

  /** @returns whether the head could be passed on */
  #begin({ status, message, rawHeaders }: AnswerHead): boolean {
    const response = this.#response
    try {
      passHead(response, status, message, headersForClient({ rawHeaders }, this.#destination))
    } catch (error) {
      response.off('close', this.#leave)
      this.#settling.reject(error)
      this.#connection.leave(this)
      return false
    }
    this.#hasBegun = true
    this.#settling.resolve()
    return true
  }

  readonly #leave = (): void => {
    if (!this.#response.writableFinished) this.#connection.leave(this)
  }
}

/** By `end` alone Node hands the system two pieces, of which the second is empty. */
function endInOnePiece(response: ServerResponse, latin1: string): void {
  response.write(latin1, 'latin1')
  response.socket?.uncork()
  response.end()
}
