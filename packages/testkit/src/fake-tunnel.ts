import { connect, type Socket } from 'node:net'
import { AppError, joinSockets } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'

/**
 * Makes an upgraded connection one to a port of this machine's 127.0.0.1, or refuses it as the real agents do.
 * @returns the connection to the service, if there is one
 */
export async function answerTunnel(
  socket: Socket,
  protocol: string,
  port: number | undefined,
): Promise<Socket | undefined> {
  socket.on('error', () => {})
  const service = port === undefined ? undefined : await dial(port)
  if (service === undefined) {
    refuseTunnel(socket, new AppError('port_closed', `Nobody listens on port ${port} of the capsule.`))
    return undefined
  }
  socket.write(switched(protocol))
  joinSockets(socket, service)
  return service
}

/** How an agent says that a connection is one of `protocol` now. */
export function switched(protocol: string): string {
  return `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`
}

/** As the host agent refuses a tunnel. */
export function refuseTunnel(socket: Socket, thrown: unknown): void {
  const { code, message } = AppError.from(thrown)
  const body = JSON.stringify({ message })
  const head = [
    `HTTP/1.1 ${errorKind(code).status} Refused`,
    'Connection: close',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `${ERROR_CODE_HEADER}: ${code}`,
  ]
  socket.resume()
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}

function dial(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    socket.once('connect', () => resolve(socket))
    socket.once('error', () => resolve(undefined))
  })
}
