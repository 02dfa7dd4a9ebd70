import { chmod, chown, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { createServer, type Http2Server } from 'node:http2'
import type { Socket } from 'node:net'
import type { ServiceImpl } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { acceptBoth, type Logger, noTracer, type Tracer } from '@wrenn/base'
import type { HostAddress } from '@wrenn/protocol'
import { HostService } from '@wrenn/protocol/host'
import { serverSpans } from '@wrenn/tracing'
import { type RemoteCredentials, RemoteListener } from './remote-listener.js'

/** Where it listens and who may call. */
interface ServerOptions {
  /** Unix socket, for a control plane on this machine and for commands of the machine. */
  readonly socketPath: string
  /** Owner of the socket, which has mode 0600: the control plane's user. */
  readonly uid: number
  readonly gid: number
  /** For a control plane on another machine. */
  readonly remote?: (RemoteCredentials & { readonly listen: HostAddress; readonly logger: Logger }) | undefined
  /** @default makes no spans */
  readonly tracer?: Tracer
}

/** Listens until it is disposed. */
export interface RunningServer extends AsyncDisposable {
  /** What it proves itself with on a network, from now on. */
  renew(credentials: RemoteCredentials): void
}

/**
 * Serves the host's RPC over h2c, and `tunnels` over HTTP/1.1, on a unix socket that only its owner may open; and by mutual TLS on a network where
 * that is asked for.
 * @throws AppError `invalid_config` when it cannot listen there
 */
export async function startServer(
  service: ServiceImpl<typeof HostService>,
  tunnels: Server,
  options: ServerOptions,
): Promise<RunningServer> {
  const { tracer = noTracer } = options
  const sockets = new Set<Socket>()
  const rpc: Http2Server = createServer(
    { settings: { initialWindowSize: 1024 * 1024 } },
    // No compression: both ends are on one machine or network, and it costs more CPU than it saves bytes.
    connectNodeAdapter({
      acceptCompression: [],
      interceptors: tracer.isOn ? [serverSpans(tracer)] : [],
      routes: (router) => router.service(HostService, service),
    }),
  )
  rpc.on('session', (session) => session.setLocalWindowSize(4 * 1024 * 1024))
  const server = acceptBoth(rpc, tunnels)
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const remote = options.remote && (await RemoteListener.listen(rpc, tunnels, options.remote))
  await rm(options.socketPath, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.socketPath, resolve)
  })
  await chmod(options.socketPath, 0o600)
  await chown(options.socketPath, options.uid, options.gid)
  return {
    renew: (credentials) => remote?.renew(credentials),
    [Symbol.asyncDispose]: async () => {
      await remote?.[Symbol.asyncDispose]()
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
