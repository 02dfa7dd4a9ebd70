import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type LagoAnswer, type LagoEvent, LagoRules, type LagoStore } from './lago-rules.js'

/** What happens to a call in place of an answer, before or after it was carried out; or another answer. */
export type LagoFault = 'cut before' | 'cut after' | LagoAnswer

/** A server on a port of this machine that takes events as Lago does. */
export class LagoServer implements AsyncDisposable {
  /** For each call the next one. */
  readonly faults: (LagoFault | undefined)[] = []
  /** How many events each call had. */
  readonly calls: number[] = []
  /** Called when a batch was taken, before that is answered. */
  onTaken: () => Promise<void> | void = () => {}
  readonly rules: LagoRules
  readonly #apiKey: string
  readonly #server = createServer((request, response) => {
    this.#serve(request, response).catch(() => response.destroy())
  })

  private constructor(rules: LagoRules, apiKey: string) {
    this.rules = rules
    this.#apiKey = apiKey
  }

  /** `codes` are those of its billable metrics. */
  static async start(options: {
    readonly apiKey: string
    readonly codes: readonly string[]
    readonly store?: LagoStore
  }): Promise<LagoServer> {
    const { apiKey, codes, store = 'postgres' } = options
    const lago = new LagoServer(new LagoRules(codes, store), apiKey)
    lago.#server.listen(0, '127.0.0.1')
    await once(lago.#server, 'listening')
    return lago
  }

  get origin(): string {
    const address = this.#server.address()
    if (typeof address !== 'object' || address === null) throw new Error('it does not listen')
    return `http://127.0.0.1:${address.port}`
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const fault = this.faults.shift()
    const events = eventsOf(Buffer.concat(chunks).toString())
    this.calls.push(events?.length ?? 0)
    if (fault === 'cut before') return void response.destroy()
    const answer = typeof fault === 'object' ? fault : this.#answer(request, events)
    if (answer.status === 200) await this.onTaken()
    if (fault === 'cut after') return void response.destroy()
    const isText = typeof answer.body === 'string'
    response.writeHead(answer.status, { 'content-type': isText ? 'text/html' : 'application/json', ...answer.headers })
    response.end(isText ? answer.body : JSON.stringify(answer.body))
  }

  #answer({ method, url, headers }: IncomingMessage, events: readonly LagoEvent[] | undefined): LagoAnswer {
    if (headers.authorization !== `Bearer ${this.#apiKey}`)
      return { status: 401, body: { status: 401, error: 'Unauthorized' } }
    if (method !== 'POST' || url !== '/api/v1/events/batch')
      return { status: 404, body: { status: 404, error: 'Not Found' } }
    if (events === undefined || !/^application\/json\b/.test(headers['content-type'] ?? ''))
      return {
        status: 400,
        body: { status: 400, error: 'BadRequest: error occurred while parsing request parameters' },
      }
    return this.rules.take(events)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

function eventsOf(body: string): readonly LagoEvent[] | undefined {
  try {
    const events: unknown = Object(JSON.parse(body)).events
    return Array.isArray(events) ? events.map(Object) : undefined
  } catch {
    return undefined
  }
}
