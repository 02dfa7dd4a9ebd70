import type { Server as HttpServer } from 'node:http'
import type { Http2Server } from 'node:http2'
import type { Socket } from 'node:net'
import { checkServerIdentity, createServer, type Server, type TLSSocket } from 'node:tls'
import { AppError, errorText, isErrno, type Logger } from '@wrenn/base'
import { CONTROL_PLANE_NAME } from '@wrenn/certificates'
import type { HostAddress } from '@wrenn/protocol'

/** From the first byte to an agreed key; slower is nobody who has business here. */
const HANDSHAKE_WITHIN_MS = 10_000
/** After so much silence the kernel asks whether the other machine is still there, and ends what is open to one that is not. */
const KEEP_ALIVE_MS = 30_000

/** By what control planes know this host, and by what it knows them; all as PEM. */
export interface RemoteCredentials {
  readonly key: string
  readonly certificate: string
  readonly authorities: string
}

interface RemoteListenerOptions extends RemoteCredentials {
  readonly listen: HostAddress
  readonly logger: Logger
}

/**
 * The host agent's door to a network. Only a control plane of the platform gets through, by TLS 1.3 with a certificate that is for that: a byte
 * of anybody else reaches nothing but TLS itself. HTTP/2 is for RPC, HTTP/1.1 for tunnels.
 */
export class RemoteListener implements AsyncDisposable {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
  }

  /** @throws AppError `invalid_config` when it cannot listen there */
  static async listen(rpc: Http2Server, tunnels: HttpServer, options: RemoteListenerOptions): Promise<RemoteListener> {
    const { listen, logger } = options
    const server = createServer({
      ...contextOf(options),
      ...{ requestCert: true, rejectUnauthorized: true, handshakeTimeout: HANDSHAKE_WITHIN_MS },
      ...{ ALPNProtocols: ['h2', 'http/1.1'], allowHalfOpen: true, noDelay: true },
      ...{ keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
    })
    const listener = new RemoteListener(server)
    server.on('secureConnection', (socket: TLSSocket) => {
      socket.on('error', () => {}) // whoever takes it hears `close`; nothing that comes from a network may end the agent
      const stranger = checkServerIdentity(CONTROL_PLANE_NAME, socket.getPeerCertificate())
      // Of a session that is resumed nothing is checked anew: a certificate that is over would go on. Control planes never ask for it.
      const refusal = socket.isSessionReused() ? 'a session of before' : stranger?.message
      if (refusal !== undefined) {
        logger.warn({ from: socket.remoteAddress, error: refusal }, 'host.caller_refused')
        socket.destroy()
      } else (socket.alpnProtocol === 'h2' ? rpc : tunnels).emit('connection', socket)
    })
    // Then only this event tells, and Node leaves the connection open.
    server.on('tlsClientError', (error, socket) => {
      logger.warn({ from: socket.remoteAddress, error: error.message }, 'host.caller_refused')
      socket.destroy()
    })
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(listen.port, listen.host, resolve)
      })
    } catch (cause) {
      const why = isErrno(cause, 'EADDRINUSE') ? 'something else does' : errorText(cause)
      throw new AppError(
        'invalid_config',
        `The host agent cannot listen on ${listen.host}, port ${listen.port}: ${why}. \`wrenn host join --listen\`.`,
      )
    }
    return listener
  }

  /** Where it listens; the kernel's choice when 0 was asked for. */
  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** For connections from now on; those that are open were agreed on. */
  renew(credentials: RemoteCredentials): void {
    this.#server.setSecureContext(contextOf(credentials))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}

function contextOf({ key, certificate: cert, authorities: ca }: RemoteCredentials) {
  return { key, cert, ca, minVersion: 'TLSv1.3' } as const
}
