import { request as ask, type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type AppError, breakOff, joinSockets } from '@wrenn/base'
import type { AnswerStart } from './answer-head.js'
import { sendFailure } from './answers.js'
import type { Destination } from './destination.js'
import { type Line, noAnswer, passHead } from './exchange.js'
import { headersForClient } from './headers.js'
import { replayed } from './replayed.js'
import { requestHead } from './request-head.js'
import type { Wording } from './sandbox-words.js'
import { readSwitching } from './switching.js'

/**
 * Asks a service to speak another protocol, such as WebSocket; if it agrees, both sides are joined byte for byte. A service that answers
 * otherwise is passed on and the connection ended: whoever is in front of us must not use it for others. Resolves when that is settled.
 * @throws AppError when there is no answer
 */
export async function forwardUpgrade(
  request: IncomingMessage,
  client: Socket,
  destination: Destination,
  line: Line,
): Promise<void> {
  const service = await connectFor(client, destination, line)
  if (service === undefined) return
  const leave = (): void => void service.destroy()
  client.once('close', leave)
  try {
    service.write(requestHead(request, destination, wishOf(request)), 'latin1')
    const { head, seen } = await readSwitching(service)
    if (head === undefined) return await passOther(request, client, destination, replayed(service, seen))
    client.off('close', leave)
    client.write(headForClient(head, destination), 'latin1')
    if (seen.length > 0) client.write(seen)
    joinSockets(client, service)
  } catch (error) {
    service.destroy()
    throw noAnswer(error)
  }
}

/** `undefined` when the client has left meanwhile. @throws AppError when there is no connection */
async function connectFor(client: Socket, destination: Destination, line: Line): Promise<Socket | undefined> {
  const left = new AbortController()
  const leave = (): void => left.abort()
  client.once('close', leave)
  if (client.destroyed) leave()
  try {
    const socket = await line.connect(destination, left.signal)
    if (!client.destroyed) return socket
    socket.destroy()
  } catch (error) {
    if (!left.signal.aborted) throw error
  } finally {
    client.off('close', leave)
  }
  return undefined
}

function wishOf({ headers }: IncomingMessage): string {
  return `Connection: Upgrade\r\nUpgrade: ${headers.upgrade ?? ''}\r\n`
}

/** An answer that does not agree, or is none, is read by Node. Resolves when it has begun. */
function passOther(request: IncomingMessage, client: Socket, destination: Destination, answers: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    // What it says is sent nowhere; of the request's own words Node might refuse some, and throw.
    const toService = ask({ method: request.method ?? 'GET', createConnection: () => answers })
    client.once('close', () => void toService.destroy())
    toService.on('error', reject)
    toService.once('upgrade', (_answer, other) => {
      other.destroy()
      reject(new Error('The answer is none of HTTP/1.1.'))
    })
    toService.once('response', (answer) => {
      try {
        passBack(answer, request, client, destination)
        resolve()
      } catch (error) {
        reject(error)
      }
    })
    toService.end()
  })
}

/** @throws TypeError, RangeError for a head that cannot be passed on; nothing has been sent to the client then */
function passBack(answer: IncomingMessage, request: IncomingMessage, client: Socket, destination: Destination): void {
  const response = lastResponse(request)
  const { statusCode = 502, statusMessage = '' } = answer
  passHead(response, statusCode, statusMessage, headersForClient(answer, destination))
  sendOn(client, response)
  answer.once('close', () => {
    if (!answer.complete) breakOff(client)
  })
  answer.on('error', () => {})
  answer.pipe(response)
}

/** Answers on a connection that Node has given away, and ends it. */
export function refuseUpgrade(request: IncomingMessage, client: Socket, error: AppError, words?: Wording): void {
  const response = lastResponse(request)
  sendOn(client, response)
  sendFailure(request, response, error, words)
}

function lastResponse(request: IncomingMessage): ServerResponse {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  return response
}

function sendOn(client: Socket, response: ServerResponse): void {
  response.assignSocket(client)
  client.resume()
  response.once('finish', () => client.destroySoon())
}

/** @throws Error when it does not say to what the service has switched */
function headForClient({ status, message, rawHeaders }: AnswerStart, destination: Destination): string {
  const [connection, upgrade] = [valuesOf(rawHeaders, 'connection'), valuesOf(rawHeaders, 'upgrade')]
  if (upgrade === '' || !/(?:^|[\s,])upgrade(?:[\s,]|$)/i.test(connection))
    throw new Error('The service switches to nothing.')
  const pairs = headersForClient({ rawHeaders }, destination)
  let head = `HTTP/1.1 ${status} ${message}\r\nConnection: Upgrade\r\nUpgrade: ${upgrade}\r\n`
  for (let at = 0; at + 1 < pairs.length; at += 2) {
    // It has no body (RFC 9110 §8.6), and who reads a length would wait for one.
    if (pairs[at]?.toLowerCase() !== 'content-length') head += `${pairs[at]}: ${pairs[at + 1]}\r\n`
  }
  return `${head}\r\n`
}

/** @param name in lower case */
function valuesOf(rawHeaders: readonly string[], name: string): string {
  return rawHeaders.filter((_value, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name).join(', ')
}
