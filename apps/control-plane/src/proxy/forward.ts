import { request as ask, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Destination } from './destination.js'
import { asked, exchange, type Line, leaving, noAnswer, StaleConnection } from './exchange.js'
import { forwardPlain, isPlain } from './forward-plain.js'
import { hasFramedBody } from './framing.js'

/** RFC 9110 §9.2.2: may be asked again when nobody knows what became of the first time. */
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * Passes a request to its service and the answer back, body by body at the pace of whoever reads it. Resolves when the service begins to
 * answer; what breaks from then on breaks the client's connection off.
 * @throws AppError when there is no answer; nothing has been sent to the client then
 */
export async function forward(
  request: IncomingMessage,
  response: ServerResponse,
  destination: Destination,
  line: Line,
): Promise<void> {
  const hasBody = hasFramedBody(request)
  if (!hasBody && isPlain(request, destination)) return await forwardPlain(request, response, destination, line)
  const leavingClient = (): AbortSignal => leaving(response)
  try {
    const args = { ...asked(request, destination), agent: line.agent, leaving: leavingClient }
    await exchange(request, response, destination, ask(args), hasBody)
  } catch (error) {
    if (response.destroyed) return
    // A kept connection may have ended while the request was on its way to it.
    if (!(error instanceof StaleConnection) || hasBody || !REPEATABLE.has(request.method ?? '')) throw noAnswer(error)
    const socket = await line.connect(destination, leavingClient())
    if (response.destroyed) return void socket.destroy()
    const again = ask({ ...asked(request, destination), createConnection: () => socket })
    await exchange(request, response, destination, again, hasBody).catch((second: unknown) => {
      throw noAnswer(second)
    })
  }
}
