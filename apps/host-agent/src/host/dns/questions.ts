import { setMaxListeners } from 'node:events'
import { errorText, type Logger } from '@wrenn/base'
import { ask } from './ask.js'
import { type Exchange, exchangeTcp, exchangeUdp, type Server } from './exchange.js'
import { FairQueue, type FairQueueLimits } from './fair-queue.js'
import { type Query, serverFailure, withId } from './message.js'
import type { Upstreams } from './upstreams.js'

/**
 * 1,000 look-ups of a program at once are 2,000 questions. What is allowed by the slots' rules per second is in
 * `network/rules.ts`; here it is what one guest, and all, can make us hold.
 */
const LIMITS: FairQueueLimits = {
  waiting: 16_384,
  waitingPerClient: 4096,
  running: 1024,
  runningPerClient: 512,
  runningAssured: 16,
}
/** Askers of one question that has no answer yet. */
const MAXIMUM_ASKERS = 2048

interface QuestionsOptions {
  readonly upstreams: Upstreams
  readonly upstreamPort: number
  /** From a question's arrival to its answer, be it SERVFAIL. */
  readonly timeoutMs: number
  readonly patienceMs: number
  readonly logger: Logger
}

type Transport = 'udp' | 'tcp'

interface Asker {
  /** The guest's address: limits are per client. */
  readonly client: string
  /** Tells its sockets apart: the same question with the same id from the same socket is a retransmission. */
  readonly socket: number
  readonly send: (answer: Buffer) => void
}

interface Question {
  readonly key: string
  readonly message: Buffer
  readonly query: Query
  readonly transport: Transport
  readonly arrivedAtMs: number
  /** Socket and id → where the answer goes. */
  readonly askers: Map<string, { readonly id: number; readonly send: (answer: Buffer) => void }>
}

const EXCHANGES: Readonly<Record<Transport, Exchange>> = { udp: exchangeUdp, tcp: exchangeTcp }

/**
 * The guests' questions that have no answer yet. The same question of one guest is asked once, however often and from however many
 * of its sockets it comes: many alike would also help who forges an answer (RFC 5452 §5).
 */
export class Questions {
  readonly #options: QuestionsOptions
  readonly #open = new Map<string, Question>()
  readonly #queue: FairQueue<Question>
  readonly #closing = new AbortController()

  constructor(options: QuestionsOptions) {
    this.#options = options
    setMaxListeners(LIMITS.running, this.#closing.signal)
    this.#queue = new FairQueue(
      LIMITS,
      async (question) => await this.#answer(question),
      ({ key }) => this.#open.delete(key),
    )
  }

  /** What is kept for the guests; nothing when none waits. */
  get held(): { readonly questions: number; readonly clients: number } {
    return { questions: this.#open.size, clients: this.#queue.clients }
  }

  /** False when the guest asks too much at once; then nothing is sent. */
  add(message: Buffer, query: Query, transport: Transport, asker: Asker): boolean {
    const key = `${asker.client} ${transport} ${message.toString('latin1', 2)}`
    const from = `${asker.socket} ${query.id}`
    const known = this.#open.get(key)
    if (known !== undefined) {
      if (known.askers.size >= MAXIMUM_ASKERS && !known.askers.has(from)) return false
      known.askers.set(from, { id: query.id, send: asker.send })
      return true
    }
    const askers = new Map([[from, { id: query.id, send: asker.send }]])
    const question = { key, message, query, transport, arrivedAtMs: performance.now(), askers }
    if (!this.#queue.push(asker.client, question)) return false
    this.#open.set(key, question)
    return true
  }

  /** Forgets all of them, and those too that servers have been asked already. */
  close(): void {
    this.#queue.clear()
    this.#closing.abort()
    this.#open.clear()
  }

  async #answer(question: Question): Promise<void> {
    const { message, query, key, askers } = question
    const answer = (await this.#find(question)) ?? serverFailure(message, query)
    // The guest asks again, and whoever listens next answers it.
    if (this.#closing.signal.aborted) return
    this.#open.delete(key)
    for (const { id, send } of askers.values()) send(withId(answer, id))
  }

  async #find({ message, query, transport, arrivedAtMs }: Question): Promise<Buffer | undefined> {
    const { upstreams, upstreamPort: port, timeoutMs, patienceMs, logger } = this.#options
    const leftMs = Math.ceil(arrivedAtMs + timeoutMs - performance.now())
    if (leftMs <= 0) return undefined
    try {
      const servers = (await upstreams.list()).map((address) => ({ address, port }))
      const { signal } = this.#closing
      if (signal.aborted) return undefined
      return await ask({
        ...{ message, query, patienceMs, servers, signal },
        exchange: EXCHANGES[transport],
        timeoutMs: leftMs,
        onAnswer: ({ address }: Server) => upstreams.noteAnswer(address),
        onSilence: ({ address }: Server) => upstreams.noteSilence(address),
      })
    } catch (error) {
      logger.warn({ err: errorText(error) }, 'dns.relay_failed')
      return undefined
    }
  }
}
