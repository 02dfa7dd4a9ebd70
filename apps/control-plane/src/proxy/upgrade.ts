import { request as ask, type IncomingMessage, ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { type AppError, breakOff, joinSockets } from '@wrenn/base'
import { sendFailure } from './answers.js'
import type { Destination } from './destination.js'
import { asked, type Line, leaving, noAnswer, passHead } from './exchange.js'
import { headersForClient } from './headers.js'
import type { Wording } from './sandbox-words.js'

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
  const left = leaving(client)
  const socket = await line.connect(destination, left).catch((error: unknown) => {
    if (!left.aborted) throw error
  })
  if (socket === undefined) return
  if (client.destroyed) return void socket.destroy()
  try {
    await exchange(request, client, destination, socket)
  } catch (error) {
    socket.destroy()
    throw noAnswer(error)
  }
}

function exchange(request: IncomingMessage, client: Socket, destination: Destination, socket: Socket): Promise<void> {
  const { headers, ...rest } = asked(request, destination)
  const wish = ['Connection', 'Upgrade', 'Upgrade', request.headers.upgrade ?? '']
  return new Promise((resolve, reject) => {
    const toService = ask({ ...rest, headers: [...headers, ...wish], createConnection: () => socket })
    const leave = (): void => void toService.destroy()
    client.once('close', leave)
    toService.on('error', reject)
    toService.once('upgrade', (answer, service: Socket, first) => {
      client.off('close', leave)
      client.write(headOf(answer, destination), 'latin1')
      if (first.length > 0) service.unshift(first)
      joinSockets(client, service)
      resolve()
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

function headOf(answer: IncomingMessage, destination: Destination): string {
  const { statusCode = 101, statusMessage = STATUS_CODES[statusCode], headers } = answer
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`, 'Connection: Upgrade', `Upgrade: ${headers.upgrade ?? ''}`]
  const pairs = headersForClient(answer, destination)
  for (let at = 0; at + 1 < pairs.length; at += 2) lines.push(`${pairs[at]}: ${pairs[at + 1]}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}
