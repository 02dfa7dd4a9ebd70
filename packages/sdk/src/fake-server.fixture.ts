// biome-ignore-all lint/correctness/noNodejsModules: part of the tests, which run in Node.js
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

export const KEY = 'wrn_test'
export const ID = `cl-${'0'.repeat(25)}`

export interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}
export type Handler = (seen: Seen, response: ServerResponse) => void
export type SocketHandler = (socket: WebSocket, first: Record<string, unknown>, path: string) => void

/** A server that says exactly what a test tells it to, and remembers what it was asked. */
export class FakeServer implements AsyncDisposable {
  readonly seen: Seen[] = []
  readonly #server = createServer((request, response) => void this.#answer(request, response))
  readonly #sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'wrenn.v1.binary' })
  handler: Handler = (_seen, response) => response.writeHead(404).end()
  socketHandler: SocketHandler = (socket) => socket.close()

  async start(): Promise<this> {
    this.#server.on('upgrade', (request, socket, head) => {
      this.#sockets.handleUpgrade(request, socket, head, (client) => {
        // Like the real one: first the key, then the first frame.
        const frames: Record<string, unknown>[] = []
        client.on('message', (data, isBinary) => {
          if (isBinary || frames.length > 1) return
          frames.push(JSON.parse(String(data)))
          const attaching = request.url?.includes('/processes/') === true
          if (frames[0]?.api_key !== KEY) return client.close(1008)
          if (frames.length === (attaching ? 1 : 2)) this.socketHandler(client, frames.at(-1) ?? {}, request.url ?? '')
        })
      })
    })
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return this
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo // it listens on TCP
    return `http://127.0.0.1:${port}`
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const seen = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    }
    this.seen.push(seen)
    this.handler(seen, response)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#sockets.clients) client.terminate()
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

export function sendJson(
  response: ServerResponse,
  value: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
}

export function capsule(state: string, more: object = {}): object {
  const at = '2026-01-02T03:04:05Z'
  const shape = { template: 'minimal', vcpus: 1, memory_mb: 512, disk_size_mb: 5120, timeout_sec: 0 }
  return {
    id: ID,
    status: state,
    state,
    ...shape,
    created_at: at,
    last_updated: at,
    labels: {},
    metadata: {},
    auto_resume: false,
    port_access: 'public',
    ...more,
  }
}
