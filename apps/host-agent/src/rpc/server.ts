import { chmod, chown, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { createServer, type Http2Server } from 'node:http2'
import type { Socket } from 'node:net'
import type { ServiceImpl } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { acceptBoth } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'

/** Where it listens and who may call. */
interface ServerOptions {
  /** Unix socket; mTLS over TCP takes its place when hosts are remote. */
  readonly socketPath: string
  /** Owner of the socket, which has mode 0600: the control plane's user. */
  readonly uid: number
  readonly gid: number
}

/** Serves the host's RPC over h2c, and `tunnels` over HTTP/1.1, on a unix socket that only its owner may open. */
export async function startServer(
  service: ServiceImpl<typeof HostService>,
  tunnels: Server,
  options: ServerOptions,
): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>()
  const rpc: Http2Server = createServer(
    { settings: { initialWindowSize: 1024 * 1024 } },
    // No compression: both ends are on one machine or network, and it costs more CPU than it saves bytes.
    connectNodeAdapter({ acceptCompression: [], routes: (router) => router.service(HostService, service) }),
  )
  rpc.on('session', (session) => session.setLocalWindowSize(4 * 1024 * 1024))
  const server = acceptBoth(rpc, tunnels)
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await rm(options.socketPath, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.socketPath, resolve)
  })
  await chmod(options.socketPath, 0o600)
  await chown(options.socketPath, options.uid, options.gid)
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
