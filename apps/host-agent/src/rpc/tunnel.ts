import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { AppError, joinSockets } from '@wrenn/base'
import {
  ERROR_CODE_HEADER,
  errorKind,
  LEASE_PROTOCOL,
  parseLeasePath,
  parseTunnelPath,
  TUNNEL_PROTOCOL,
  type TunnelTarget,
} from '@wrenn/protocol'
import type { CapsuleManager } from '../capsule/manager.js'
import { parseCapsuleId } from './convert.js'

/** Bytes that pass within it are one sign of life. */
const TOUCH_EVERY_MS = 1_000
const switched = (protocol: string): string =>
  `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`

/**
 * Answers `GET /tunnel/{capsule}/{port}` with `Upgrade: wrenn-tunnel`: the connection becomes one to that port of the guest, byte for
 * byte. A connection of its own for each, because that gives every direction its own pace and its own end, which streams that share an
 * HTTP/2 connection do not have (architecture.md). `GET /lease/{capsule}` with `Upgrade: wrenn-guest-lease`, on the unix socket alone, tells where the
 * guest is, and by its end that it is there no more. Refusals carry a Wrenn code. Hand it connections; it does not listen itself.
 */
export function createTunnelServer(manager: () => CapsuleManager): Server {
  const server = createServer((_request, response) => void response.writeHead(404).end())
  server.on('upgrade', (request, socket: Socket, head) => {
    if (head.length > 0) socket.unshift(head)
    void (request.headers.upgrade === LEASE_PROTOCOL ? lease : serve)(request, socket, manager)
  })
  return server
}

async function serve(request: IncomingMessage, socket: Socket, manager: () => CapsuleManager): Promise<void> {
  const left = new AbortController()
  const leave = (): void => left.abort()
  socket.on('error', leave)
  socket.once('close', leave)
  try {
    const { capsuleId, port } = targetOf(request)
    const { client } = await manager().running(parseCapsuleId(capsuleId))
    const service = await client.dial(port, left.signal)
    socket.off('close', leave)
    socket.write(switched(TUNNEL_PROTOCOL))
    joinSockets(socket, service, touching(capsuleId, manager))
  } catch (error) {
    refuse(socket, AppError.from(error))
  }
}

async function lease({ url = '' }: IncomingMessage, socket: Socket, manager: () => CapsuleManager): Promise<void> {
  socket.on('error', () => {}) // `close` follows
  try {
    // Who calls from another machine does not reach guests.
    const capsuleId = socket.remoteAddress === undefined ? parseLeasePath(url) : undefined
    if (capsuleId === undefined) throw new AppError('not_found', 'Guests are leased to callers on this machine.')
    const { client } = await manager().running(parseCapsuleId(capsuleId))
    const { address, ended } = client.place
    const end = (): void => void socket.destroy()
    if (ended.aborted || socket.destroyed) return end()
    ended.addEventListener('abort', end, { once: true })
    socket.once('close', () => ended.removeEventListener('abort', end))
    socket.write(`${switched(LEASE_PROTOCOL)}${address}\n`)
    socket.on('data', touching(capsuleId, manager))
    socket.pipe(socket)
  } catch (error) {
    refuse(socket, AppError.from(error))
  }
}

function targetOf({ url = '', headers }: IncomingMessage): TunnelTarget {
  const target = headers.upgrade === TUNNEL_PROTOCOL ? parseTunnelPath(url) : undefined
  if (target === undefined) throw new AppError('not_found', 'There are only tunnels to ports of capsules.')
  return target
}

/** Traffic is use; a connection that is only kept is none. */
function touching(capsuleId: string, manager: () => CapsuleManager): () => void {
  let touchedAtMs = performance.now()
  return () => {
    const now = performance.now()
    if (now - touchedAtMs < TOUCH_EVERY_MS) return
    touchedAtMs = now
    manager().activity.touch(capsuleId)
  }
}

function refuse(socket: Socket, error: AppError): void {
  const body = Buffer.from(JSON.stringify({ message: error.message }))
  const head = [
    `HTTP/1.1 ${errorKind(error.code).status} Refused`,
    'Connection: close',
    'Content-Type: application/json',
    `Content-Length: ${body.length}`,
    `${ERROR_CODE_HEADER}: ${error.code}`,
  ]
  socket.resume()
  socket.end(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body]), () => socket.destroy())
}
