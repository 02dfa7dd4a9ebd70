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
      this.told.push(told)
      response.writeHead(204).end()
    } catch {
      response.destroy()
    }
  })
  #port = 0

  static async start(): Promise<Recorder> {
    const recorder = new Recorder()
    await recorder.up()
    return recorder
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/hook`
  }

  /** Listens, where it did before. */
  async up(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1')
    await once(this.#server, 'listening')
    const { port } = this.#server.address() as AddressInfo // it listens on a port
    this.#port = port
  }

  /** Nobody listens there any more. */
  async down(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.down()
  }
}
