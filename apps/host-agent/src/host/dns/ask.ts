import type { Exchange, Server } from './exchange.js'
import { isFailure, type Query } from './message.js'

/** A server that is silent for so long is asked in vain or slow: the next one is asked too, and whoever answers first counts. */
export const PATIENCE_MS = 1_000
/** Questions to servers for one question of a guest. */
const MAXIMUM_ATTEMPTS = 4

interface AskOptions {
  readonly message: Buffer
  readonly query: Query
  readonly exchange: Exchange
  /** In the order in which they are asked. */
  readonly servers: readonly Server[]
  /** For all attempts together. */
  readonly timeoutMs: number
  /** @default PATIENCE_MS */
  readonly patienceMs?: number
  /** Gives up, without an answer. */
  readonly signal?: AbortSignal
  readonly onAnswer: (server: Server) => void
  /** It did not answer within the patience, or cannot be reached. */
  readonly onSilence: (server: Server) => void
}

/**
 * The first good answer of any server. When none comes, what the last one said of its failure, if anything. A lost question is asked
 * again, of a server that was silent before, under another id and port.
 */
export async function ask(options: AskOptions): Promise<Buffer | undefined> {
  return await new Promise((resolve) => new Hunt(options, resolve).next())
}

class Hunt {
  readonly #options: AskOptions
  readonly #resolve: (answer: Buffer | undefined) => void
  readonly #deadline: NodeJS.Timeout
  readonly #remaining: Server[]
  readonly #open = new Set<() => void>()
  #attempts = 0
  #patience: NodeJS.Timeout | undefined
  #failure: Buffer | undefined
  #done = false
  readonly #giveUp = (): void => this.#finish(undefined)

  constructor(options: AskOptions, resolve: (answer: Buffer | undefined) => void) {
    this.#options = options
    this.#resolve = resolve
    this.#remaining = [...options.servers]
    this.#deadline = setTimeout(() => this.#finish(this.#failure), options.timeoutMs)
    options.signal?.addEventListener('abort', this.#giveUp)
  }

  next(): void {
    clearTimeout(this.#patience)
    const server = this.#attempts < MAXIMUM_ATTEMPTS ? this.#remaining.shift() : undefined
    if (server === undefined) {
      if (this.#open.size === 0) this.#finish(this.#failure)
      return
    }
    this.#attempts += 1
    this.#attempt(server)
  }

  #attempt(server: Server): void {
    const { message, query, exchange, patienceMs = PATIENCE_MS, onAnswer, onSilence } = this.#options
    let silent = false
    this.#patience = setTimeout(() => {
      silent = true
      onSilence(server)
      this.#remaining.push(server)
      this.next()
    }, patienceMs)
    const giveUp = exchange(message, query, server, (answer) => {
      this.#open.delete(giveUp)
      if (answer !== undefined) onAnswer(server)
      else if (!silent) onSilence(server)
      if (answer !== undefined && !isFailure(answer)) return this.#finish(answer)
      this.#failure = answer ?? this.#failure
      // A later attempt is under way when this one was silent at first, and goes on by itself.
      if (!silent || this.#open.size === 0) this.next()
    })
    this.#open.add(giveUp)
  }

  #finish(answer: Buffer | undefined): void {
    if (this.#done) return
    this.#done = true
    clearTimeout(this.#patience)
    clearTimeout(this.#deadline)
    this.#options.signal?.removeEventListener('abort', this.#giveUp)
    for (const giveUp of this.#open) giveUp()
    this.#resolve(answer)
  }
}
