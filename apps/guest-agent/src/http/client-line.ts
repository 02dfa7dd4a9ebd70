import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { CLIENT_LINE_PATH, CLIENT_LINE_PROTOCOL } from '@wrenn/protocol'
import { type Identity, unauthorized } from '../identity/identity.js'
import { refuseUpgrade } from './upgrade.js'

const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${CLIENT_LINE_PROTOCOL}\r\n\r\n`

interface ClientLinesOptions {
  readonly identity: Identity
  /** Serves what comes over the lines. */
  readonly listener: RequestListener
  readonly keepAliveMs: number
}

/**
 * Connections that the host has opened for clients whom the control plane has let in. The host proves itself once, when it opens one, so that
 * its secret is in no request that a client has a part in; what comes over such a line is a client's, whatever its headers say.
 */
export class ClientLines {
  readonly #identity: Identity
  readonly #server: Server

  constructor({ identity, listener, keepAliveMs }: ClientLinesOptions) {
    this.#identity = identity
    this.#server = createServer({ keepAliveTimeout: keepAliveMs, requestTimeout: 0 }, listener)
  }

  /** Takes a connection that asks to be a line. @returns whether it does */
  take(request: IncomingMessage, socket: Socket, head: Buffer): boolean {
    if (request.url !== CLIENT_LINE_PATH || request.headers.upgrade !== CLIENT_LINE_PROTOCOL) return false
    if (!this.#identity.isHost(request.headers)) {
      refuseUpgrade(socket, unauthorized())
      return true
    }
    socket.write(SWITCHED)
    if (head.length > 0) socket.unshift(head)
    this.#server.emit('connection', socket)
    return true
  }

  close(): void {
    this.#server.closeAllConnections()
  }
}
