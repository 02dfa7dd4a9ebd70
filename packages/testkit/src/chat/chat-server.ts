import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request as a chat had it. */
export interface ChatRequest {
  readonly method: string
  readonly url: URL
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** What it is answered with. */
export interface ChatAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text as it is; anything else as JSON. */
  readonly body?: unknown
}

/** How one provider takes messages, by its documentation. */
export interface ChatRules {
  /** What a channel is addressed with. */
  config(origin: string): Readonly<Record<string, string>>
  /** What people see, marks turned into what they do: `[bold]…`, `[call]…`; or the refusal. */
  take(
    request: ChatRequest,
    chat: { readonly seen: Set<string> },
  ): { readonly shown: string } | { readonly refusal: ChatAnswer }
  readonly success: ChatAnswer
  /** When too much comes. */
  rateLimit(afterSec: number): ChatAnswer
  /** When what it is addressed with is no longer there. */
  readonly gone: ChatAnswer
}

/** A server on a port of this machine that takes messages as a provider does. */
export class ChatServer implements AsyncDisposable {
  readonly requests: ChatRequest[] = []
  /** What people see. */
  readonly shown: string[] = []
  /** For each request the next one, before it is looked at. */
  readonly answers: ChatAnswer[] = []
  readonly rules: ChatRules
  readonly #seen = new Set<string>()
  readonly #server = createServer((request, response) => {
    this.#answer(request).then(
      ({ status, headers, body }) => {
        const isText = typeof body === 'string'
        response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...headers })
        response.end(body === undefined ? '' : isText ? body : JSON.stringify(body))
      },
      () => response.destroy(),
    )
  })

  private constructor(rules: ChatRules) {
    this.rules = rules
  }

  static async start(rules: ChatRules): Promise<ChatServer> {
    const chat = new ChatServer(rules)
    chat.#server.listen(0, '127.0.0.1')
    await once(chat.#server, 'listening')
    return chat
  }

  get origin(): string {
    const { port } = chat(this.#server.address())
    return `http://127.0.0.1:${port}`
  }

  get config(): Readonly<Record<string, string>> {
    return this.rules.config(this.origin)
  }

  async #answer(incoming: IncomingMessage): Promise<ChatAnswer> {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk)
    const { method = '', headers } = incoming
    const url = new URL(incoming.url ?? '/', this.origin)
    const request = { method, url, headers, body: Buffer.concat(chunks).toString() }
    this.requests.push(request)
    const told = this.answers.shift()
    if (told !== undefined) return told
    const taken = this.rules.take(request, { seen: this.#seen })
    if ('refusal' in taken) return taken.refusal
    if (taken.shown !== '') this.shown.push(taken.shown)
    return this.rules.success
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

function chat(address: string | AddressInfo | null): AddressInfo {
  if (typeof address !== 'object' || address === null) throw new Error('it does not listen')
  return address
}
