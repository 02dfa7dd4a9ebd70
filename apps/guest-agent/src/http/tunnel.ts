import type { IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { AppError } from '@wrenn/base'
import { type Identity, unauthorized } from '../identity/identity.js'
import { refuseUpgrade } from './upgrade.js'

const LOOPBACKS = ['127.0.0.1', '::1'] as const

/**
 * `GET /connect/{port}` with `Connection: Upgrade`, `Upgrade: tcp`: after the 101 the connection is a raw tunnel to that port of
 * the guest's loopback, so that services which listen only there are reachable; never to the agent itself. For the host alone.
 */
export async function handleUpgrade(
  request: IncomingMessage,
  client: Duplex,
  head: Buffer,
  { identity, ownPort }: { readonly identity: Identity; readonly ownPort: number },
): Promise<void> {
  client.on('error', () => client.destroy())
  try {
    if (!identity.isHost(request.headers)) throw unauthorized()
    const service = await connectLoopback(portOf(request, ownPort))
    if (client.destroyed) {
      service.destroy()
      return
    }
    client.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
    if (head.length > 0) service.write(head)
    join(client, service)
  } catch (error) {
    refuseUpgrade(client, AppError.from(error))
  }
}

function portOf(request: IncomingMessage, ownPort: number): number {
  const port = Number(/^\/connect\/(\d{1,5})$/.exec(request.url ?? '')?.[1])
  if (port === ownPort) throw new AppError('invalid_request', `Port ${port} is reserved.`)
  if (request.headers.upgrade?.toLowerCase() === 'tcp' && port > 0 && port < 65_536) return port
  throw new AppError('not_found', 'Only GET /connect/{port} with "Upgrade: tcp" can be upgraded.')
}

async function connectLoopback(port: number): Promise<Socket> {
  for (const host of LOOPBACKS) {
    const socket = await tryConnect(host, port)
    if (socket !== undefined) return socket
  }
  throw new AppError('guest_error', `port ${port} is not open`)
}

function tryConnect(host: string, port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
    socket.once('connect', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', () => {
      socket.destroy()
      resolve(undefined)
    })
  })
}

/** Copies both ways; each direction ends by itself, a broken side takes the other with it. */
function join(client: Duplex, service: Socket): void {
  service.on('error', () => client.destroy())
  client.once('close', () => service.destroy())
  // What the service has said is delivered before the client's side closes, however slowly it reads.
  service.once('close', () => {
    client.resume()
    client.end(() => client.destroy())
  })
  client.pipe(service)
  service.pipe(client)
}
