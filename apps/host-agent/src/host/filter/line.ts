import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import { type FilterAnswer, type FilterAsk, filterAnswerSchema, MAXIMUM_MESSAGE_BYTES } from './protocol.js'

const ANSWER_TIMEOUT_MS = 5_000

interface Waiting {
  readonly resolve: (answer: FilterAnswer) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout
}

/** The host agent's line to a filter that runs. */
export class FilterLine {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  #asked = 0
  #rest = ''
  /** Resolves when the line is over. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8').unref()
    socket.on('error', () => socket.destroy())
    socket.on('data', (text: string) => this.#take(text))
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#failAll()
        resolve()
      })
    })
  }

  /** @returns nothing when nobody listens there */
  static async open(path: string): Promise<FilterLine | undefined> {
    const socket = connect(path)
    try {
      await once(socket, 'connect')
      return new FilterLine(socket)
    } catch {
      return undefined // nobody there, or no longer
    }
  }

  /** @throws AppError `engine_failure` when it does not answer, or cannot */
  async ask(ask: FilterAsk): Promise<FilterAnswer> {
    const id = ++this.#asked
    const answer = await new Promise<FilterAnswer>((resolve, reject) => {
      if (this.#socket.destroyed) throw away()
      const timer = setTimeout(() => this.close(), ANSWER_TIMEOUT_MS)
      this.#waiting.set(id, { resolve, reject, timer })
      this.#socket.write(`${JSON.stringify({ id, ask })}\n`)
    })
    if (answer.error !== undefined) throw new AppError('engine_failure', `The egress filter failed: ${answer.error}`)
    return answer
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(text: string): void {
    const lines = `${this.#rest}${text}`.split('\n')
    this.#rest = lines.pop() ?? ''
    if (this.#rest.length > MAXIMUM_MESSAGE_BYTES) this.close()
    for (const line of lines) {
      // It serves guests, so it is believed no more than they are.
      const answer = parseAnswer(line)
      if (answer === undefined) {
        this.close()
        return
      }
      const waiting = this.#waiting.get(answer.id)
      this.#waiting.delete(answer.id)
      clearTimeout(waiting?.timer)
      waiting?.resolve(answer)
    }
  }

  #failAll(): void {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer)
      reject(away())
    }
    this.#waiting.clear()
  }
}

function parseAnswer(line: string): FilterAnswer | undefined {
  try {
    return filterAnswerSchema.parse(JSON.parse(line))
  } catch {
    return undefined
  }
}

function away(): AppError {
  return new AppError('engine_failure', 'The egress filter does not answer.')
}
