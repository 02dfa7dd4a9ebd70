import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** An event as a webhook had it. */
export interface Told {
  readonly id: string
  readonly event: string
  readonly resource: { readonly id: string }
  readonly data: { readonly n?: number }
}

/** A target for webhooks, on a port of this machine, that remembers what it took. */
export class Recorder implements AsyncDisposable {
  readonly told: Told[] = []
  /** All that came, also what it did not take. */
  requests = 0
  /** Takes a request that it answers itself, by giving true. */
  before: (response: ServerResponse, told: Told) => boolean | Promise<boolean> = () => false
  readonly #server = createServer(async (request, response) => {
    try {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      this.requests++
      const told: Told = JSON.parse(Buffer.concat(chunks).toString())
      if (await this.before(response, told)) return
      // Whoever asked has given up meanwhile, and asks again.
      if (response.destroyed) return
      this.told.push(told)
      response.writeHead(204).end()
    } catch {
      response.destroy()
    }
  })
  #port = 0
  #isDown = false

  static async start(): Promise<Recorder> {
    const recorder = new Recorder()
    recorder.#server.on('connection', (socket) => {
      if (recorder.#isDown) socket.destroy()
    })
    recorder.#server.listen(0, '127.0.0.1')
    await once(recorder.#server, 'listening')
    const { port } = recorder.#server.address() as AddressInfo // it listens on a port
    recorder.#port = port
    return recorder
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/hook`
  }

  /** Answers again. */
  up(): void {
    this.#isDown = false
  }

  /** Ends every connection at once. The port stays its own, so that nobody else has it meanwhile. */
  down(): void {
    this.#isDown = true
    this.#server.closeAllConnections()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }
}
