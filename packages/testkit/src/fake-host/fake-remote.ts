import type { Server as HttpServer } from 'node:http'
import type { Http2Server } from 'node:http2'
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'

/** What a host proves itself with and whom it lets call, as PEM. */
export interface FakeRemoteCredentials {
  readonly key: string
  readonly cert: string
  readonly ca: string
}

/** A host's door to a network: mutual TLS 1.3, HTTP/2 for RPC, HTTP/1.1 for tunnels. */
export interface FakeRemote extends AsyncDisposable {
  /** `address:port`. */
  readonly address: string
  renew(credentials: FakeRemoteCredentials): void
}

export async function listenRemotely(
  rpc: Http2Server,
  tunnels: HttpServer,
  credentials: FakeRemoteCredentials,
): Promise<FakeRemote> {
  const sockets = new Set<Socket>()
  const server = createServer({
    ...{ ...credentials, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true },
    ...{ ALPNProtocols: ['h2', 'http/1.1'], allowHalfOpen: true, noDelay: true },
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('error', () => {})
    const server = socket.alpnProtocol === 'h2' ? rpc : tunnels
    server.emit('connection', socket)
  })
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  return {
    address: `127.0.0.1:${port}`,
    renew: (renewed) => server.setSecureContext({ ...renewed, minVersion: 'TLSv1.3' }),
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
