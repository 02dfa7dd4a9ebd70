import { readFile } from 'node:fs/promises'
import type { Server as HttpServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { AppError, errorText, isErrno, type KeyPair, type Logger, requireFitting } from '@wrenn/base'
import type { TlsConfig } from '../config.js'
import { KEEPALIVE_AFTER_MS } from './front.js'

/** From the first byte to an agreed key; slower is a client that wants to hold a connection. */
const HANDSHAKE_WITHIN_MS = 20_000
const LOOK_FOR_RENEWAL_EVERY_MS = 60_000

/** What a secure listener needs. */
export interface SecureListenerOptions extends TlsConfig {
  /** Whoever renews a certificate puts it in the place of the old one. @default 60 000 */
  readonly lookEveryMs?: number | undefined
  /** @default 20 000 */
  readonly handshakeWithinMs?: number | undefined
  readonly logger: Logger
  /** Whom connections are for that speak HTTP/2 from their first byte on. */
  readonly http2: Http2Door
}

/** Takes connections by HTTP/2 for some names. */
export interface Http2Door {
  readonly offersHttp2: (serverName: string) => boolean
  readonly http2: (socket: TLSSocket) => void
}

/**
 * A second way to the same server, by TLS: what it agrees on with a client, the server then serves like any connection of its own, and knows
 * by `encrypted` of its socket. A renewed certificate counts for the next connection, without a restart; one that does not fit its key is
 * told and not taken.
 */
export class SecureListener {
  readonly #server: Server
  readonly #options: SecureListenerOptions
  readonly #sockets = new Set<Socket>()
  readonly #looking: NodeJS.Timeout
  #pair: KeyPair

  private constructor(options: SecureListenerOptions, pair: KeyPair, server: Server) {
    this.#options = options
    this.#pair = pair
    this.#server = server
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    this.#looking = setInterval(() => void this.#renew(), options.lookEveryMs ?? LOOK_FOR_RENEWAL_EVERY_MS).unref()
  }

  /** @throws AppError `invalid_config` when the files cannot be used or the port is taken */
  static async listen(http: HttpServer, options: SecureListenerOptions): Promise<SecureListener> {
    const pair = await readPair(options)
    const server = serverWith(pair, options)
    const listener = new SecureListener(options, pair, server)
    server.on('secureConnection', (socket: TLSSocket) => {
      if (socket.alpnProtocol === 'h2') options.http2.http2(socket)
      else http.emit('connection', socket)
    })
    // A scanner, somebody who does not trust the certificate, or who has taken too long: then only this event tells, and Node leaves it open.
    server.on('tlsClientError', (_error, socket) => socket.destroy())
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(options.port, options.host, resolve)
      })
    } catch (cause) {
      clearInterval(listener.#looking)
      const code = isErrno(cause, 'EADDRINUSE') ? 'conflict' : 'invalid_config'
      throw new AppError(code, `Cannot listen for TLS: ${errorText(cause)}. WRENN_TLS_PORT names the port.`)
    }
    return listener
  }

  /** Where it listens; the kernel's choice when 0 was asked for. */
  get port(): number {
    return (this.#server.address() as AddressInfo).port // a TCP listener has one until it is closed
  }

  /** Takes no more connections; settles when the last one has ended. */
  async close(): Promise<void> {
    clearInterval(this.#looking)
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** Ends those that are left, whatever they carry. */
  closeAllConnections(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async #renew(): Promise<void> {
    const { logger, certFile } = this.#options
    try {
      const pair = await readPair(this.#options)
      if (pair.cert === this.#pair.cert && pair.key === this.#pair.key) return
      this.#server.setSecureContext(pair)
      this.#pair = pair
      logger.info({ file: certFile }, 'tls.certificate_renewed')
    } catch (error) {
      // Half of a renewal may be there; the next look sees all of it.
      logger.warn({ file: certFile, error: errorText(error) }, 'tls.certificate_refused')
    }
  }
}

/** @throws AppError `invalid_config` for files that are missing, half written, or not of each other */
async function readPair({ certFile, keyFile }: TlsConfig): Promise<KeyPair> {
  const read = async (name: string, path: string): Promise<string> =>
    await readFile(path, 'utf8').catch((cause: unknown) => {
      throw new AppError('invalid_config', `${name} cannot be read: ${errorText(cause)}.`)
    })
  const pair = { cert: await read('WRENN_TLS_CERT', certFile), key: await read('WRENN_TLS_KEY', keyFile) }
  requireFitting(pair, { cert: 'WRENN_TLS_CERT', key: 'WRENN_TLS_KEY' })
  return pair
}

function serverWith(pair: KeyPair, { handshakeWithinMs, http2 }: SecureListenerOptions): Server {
  return createServer({
    ...pair,
    minVersion: 'TLSv1.2',
    // Browsers and most programs offer both, and get WebSocket by HTTP/1.1; clients of gRPC know HTTP/2 alone.
    ALPNCallback: ({ servername, protocols }) => {
      if (protocols.includes('http/1.1')) return 'http/1.1'
      // Without SNI it is `false`, whatever its type says; what is thrown here ends the process before Node 20.20.
      const isNamed = typeof servername === 'string' && http2.offersHttp2(servername)
      return protocols.includes('h2') && isNamed ? 'h2' : undefined
    },
    handshakeTimeout: handshakeWithinMs ?? HANDSHAKE_WITHIN_MS,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEPALIVE_AFTER_MS,
  })
}
