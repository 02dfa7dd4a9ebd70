import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Platform } from './harness.js'

/** A service that listens where the fake host's capsules have their ports. */
export interface Service extends AsyncDisposable {
  readonly port: number
  readonly server: Server
  /** Connections that were made to it. */
  readonly connections: number
}

/** Serves HTTP on this machine's loopback. */
export async function serve(onRequest: RequestListener): Promise<Service> {
  const server = createServer(onRequest)
  let connections = 0
  server.on('connection', () => {
    connections++
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    port,
    server,
    get connections() {
      return connections
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A connection to the platform's listener. */
export function dial(platform: Pick<Platform, 'url'>): Socket {
  const { hostname, port } = new URL(platform.url)
  return connect({ host: hostname, port: Number(port), allowHalfOpen: true }).on('error', () => {})
}

/** Sends bytes as they are. @returns everything that came until the other side ended */
export async function exchange(platform: Pick<Platform, 'url'>, bytes: string): Promise<string> {
  const socket = dial(platform)
  socket.write(Buffer.from(bytes, 'latin1'))
  return await readAll(socket)
}

/** What comes until the end, or until it breaks off. */
export async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of socket) chunks.push(chunk)
  } catch {
    chunks.push(Buffer.from('<broken off>'))
  }
  return Buffer.concat(chunks).toString('latin1')
}

/** What comes until `pattern` is in it. */
export async function readUntil(socket: Socket, pattern: RegExp): Promise<string> {
  let text = ''
  return await new Promise((resolve, reject) => {
    const look = (chunk: Buffer): void => {
      text += chunk.toString('latin1')
      if (!pattern.test(text)) return
      socket.off('data', look)
      resolve(text)
    }
    socket.on('data', look)
    socket.once('close', () => reject(new Error(`closed before ${pattern}: ${text}`)))
  })
}

/** The body of a request, as a service reads it. */
export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}
