import { chmod, chown, rm } from 'node:fs/promises'
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2'
import type { ServiceImpl } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { HostService } from '@wrenn/protocol/host'

/** Where it listens and who may call. */
interface ServerOptions {
  /** Unix socket; mTLS over TCP takes its place when hosts are remote. */
  readonly socketPath: string
  /** Owner of the socket, which has mode 0600: the control plane's user. */
  readonly uid: number
  readonly gid: number
}

/** Serves the host's RPC over h2c on a unix socket that only its owner may open. */
export async function startServer(
  service: ServiceImpl<typeof HostService>,
  options: ServerOptions,
): Promise<AsyncDisposable> {
  const sessions = new Set<ServerHttp2Session>()
  const server: Http2Server = createServer(
    { settings: { initialWindowSize: 1024 * 1024 } },
    // No compression: both ends are on one machine or network, and it costs more CPU than it saves bytes.
    connectNodeAdapter({ acceptCompression: [], routes: (router) => router.service(HostService, service) }),
  )
  server.on('session', (session) => {
    sessions.add(session)
    session.setLocalWindowSize(4 * 1024 * 1024)
    session.once('close', () => sessions.delete(session))
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
      for (const session of sessions) session.destroy()
      await closed
    },
  }
}
