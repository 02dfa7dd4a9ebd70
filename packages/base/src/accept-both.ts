import type { Server as HttpServer } from 'node:http'
import type { Http2Server } from 'node:http2'
import { createServer, type Server } from 'node:net'

/** The first byte of HTTP/2's preface, `PRI * HTTP/2.0`. */
const FIRST_OF_PREFACE = 0x50

/**
 * A listener for HTTP/2 with prior knowledge and HTTP/1.1 at one address; neither server listens itself. The HTTP/1.1 one is
 * for `GET` only: by its first byte a connection is told apart.
 */
export function acceptBoth(http2: Http2Server, http1: HttpServer): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const forget = (): void => void socket.destroy()
    socket.once('error', forget)
    socket.once('end', forget)
    socket.once('data', (first: Buffer) => {
      socket.off('error', forget)
      socket.off('end', forget)
      socket.pause()
      socket.unshift(first)
      const server = first[0] === FIRST_OF_PREFACE ? http2 : http1
      server.emit('connection', socket)
      // Whoever has taken it reads on; what came first is in the socket's own buffer, and comes first.
      process.nextTick(() => socket.resume())
    })
  })
}
