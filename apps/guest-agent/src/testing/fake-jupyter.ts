import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'

/** How a fake kernel answers code; each call sends one message of that request. */
export type Kernel = (code: string, send: (type: string, content: object) => void) => void | Promise<void>

/** A Jupyter Server whose kernels are functions. */
export class FakeJupyter implements AsyncDisposable {
  /** What was asked for, in order: REST calls and code. */
  readonly asked: string[] = []
  readonly #server = createServer((request, response) => this.#answer(request, response))
  readonly #sockets = new WebSocketServer({ noServer: true })
  readonly #kernel: Kernel
  #kernels = 0

  constructor(kernel: Kernel) {
    this.#kernel = kernel
    this.#server.on('upgrade', (request, socket, head) => {
      this.#sockets.handleUpgrade(request, socket, head, (opened) => this.#serve(opened))
    })
  }

  /** @returns its address */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Tells every open line that its kernel ended and comes back. */
  endKernels(): void {
    for (const socket of this.#sockets.clients) send(socket, {}, 'status', { execution_state: 'restarting' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate()
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.asked.push(`${request.method} ${request.url}`)
    const isNew = request.method === 'POST' && request.url === '/api/kernels'
    if (isNew) this.#kernels++
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(isNew ? { id: `k${this.#kernels}` } : {}))
  }

  #serve(socket: WebSocket): void {
    let last: Promise<void> = Promise.resolve()
    socket.on('message', (data) => {
      const { header, content } = JSON.parse(String(data))
      this.asked.push(content.code)
      last = last.then(async () => {
        await this.#kernel(content.code, (type, body) => send(socket, header, type, body))
        send(socket, header, 'execute_reply', { status: 'ok' }, 'shell')
        send(socket, header, 'status', { execution_state: 'idle' })
      })
    })
  }
}

function send(socket: WebSocket, parent: object, type: string, content: object, channel = 'iopub'): void {
  if (socket.readyState !== WebSocket.OPEN) return
  socket.send(JSON.stringify({ header: { msg_type: type }, parent_header: parent, content, channel }))
}
