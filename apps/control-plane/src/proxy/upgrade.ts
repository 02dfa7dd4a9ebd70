import { request as ask, type IncomingMessage, ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { AppError, joinSockets } from '@wrenn/base'
import { sendFailure } from './answers.js'
import type { Destination } from './destination.js'
import { asked, type Line } from './forward.js'
import { headersForClient } from './headers.js'

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
  const socket = await line.connect(destination)
  if (client.destroyed) return void socket.destroy()
  const { headers, ...rest } = asked(request, destination)
  const wish = ['Connection', 'Upgrade', 'Upgrade', request.headers.upgrade ?? '']
  await new Promise<void>((resolve, reject) => {
    const toService = ask({ ...rest, headers: [...headers, ...wish], createConnection: () => socket })
    const leave = (): void => void toService.destroy()
    client.once('close', leave)
    toService.once('error', (cause) => {
      reject(new AppError('guest_error', 'The service broke off before it had answered.', { cause }))
    })
    toService.once('upgrade', (answer, service: Socket, first) => {
      client.off('close', leave)
      client.write(headOf(answer, destination))
      if (first.length > 0) service.unshift(first)
      joinSockets(client, service)
      resolve()
    })
    toService.once('response', (answer) => {
      const response = responseTo(request, client)
      response.sendDate = false
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, headersForClient(answer, destination))
      answer.once('close', () => {
        if (!answer.complete) client.resetAndDestroy()
      })
      answer.on('error', () => {})
      answer.pipe(response)
      resolve()
    })
    toService.end()
  })
}

/** Answers on a connection that Node has given away, and ends it. */
export function refuseUpgrade(request: IncomingMessage, client: Socket, error: AppError): void {
  sendFailure(request, responseTo(request, client), error)
}

function responseTo(request: IncomingMessage, client: Socket): ServerResponse {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(client)
  client.resume()
  response.once('finish', () => client.destroySoon())
  return response
}

function headOf(answer: IncomingMessage, destination: Destination): string {
  const { statusCode = 101, statusMessage = STATUS_CODES[statusCode], headers } = answer
  const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`, 'Connection: Upgrade', `Upgrade: ${headers.upgrade ?? ''}`]
  const pairs = headersForClient(answer, destination)
  for (let at = 0; at + 1 < pairs.length; at += 2) lines.push(`${pairs[at]}: ${pairs[at + 1]}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}
