import { AppError } from '@wrenn/base'
import WebSocket from 'ws'
import { type ExecuteRequest, executeRequest, type KernelMessage, parseMessage } from './kernel-messages.js'

/** What a request comes to know of its run. */
export interface Listener {
  /** A message of this request, in order. */
  readonly onMessage: (message: KernelMessage) => void
  /** The kernel or the line to it is gone: nothing follows. */
  readonly onGone: (reason: string) => void
}

interface Run extends Listener {
  isIdle: boolean
  isAnswered: boolean
  readonly done: () => void
}

/** Messages of several MiB are plots. */
const MAX_MESSAGE_BYTES = 1024 * 1024 * 1024
const OPEN_TIMEOUT_MS = 60_000
/** Of a kernel that ended and is started again by the server. */
const ENDED_STATES: readonly unknown[] = ['restarting', 'autorestarting', 'dead']

/** The WebSocket to one kernel: requests go in one after the other, and each gets the messages that are its own. */
export class KernelLine {
  readonly #socket: WebSocket
  readonly #session: string
  readonly #runs = new Map<string, Run>()
  #gone: string | undefined
  #ends = 0

  private constructor(socket: WebSocket, session: string) {
    this.#socket = socket
    this.#session = session
    // Messages with buffers of their own, as of widgets, come as bytes; there is nothing for our clients in them.
    socket.on('message', (data, isBinary) => {
      if (!isBinary) this.#receive(String(data))
    })
    socket.on('close', () => this.#lose('The line to the kernel was cut.'))
    socket.on('error', () => {}) // `close` follows
  }

  /** Opens it once the kernel listens. @throws AppError `guest_error` */
  static async open(url: string, session: string): Promise<KernelLine> {
    const socket = new WebSocket(url, {
      maxPayload: MAX_MESSAGE_BYTES,
      handshakeTimeout: OPEN_TIMEOUT_MS,
      perMessageDeflate: false,
    })
    const line = new KernelLine(socket, session)
    await new Promise<void>((resolve, reject) => {
      socket.once('open', () => resolve())
      socket.once('close', () => reject(new AppError('guest_error', 'Jupyter Server refused the line to a kernel.')))
    })
    return line
  }

  get isOpen(): boolean {
    return this.#gone === undefined
  }

  /** How often the kernel has ended and come back, without what it had known. */
  get ends(): number {
    return this.#ends
  }

  /** Runs code; ends when the kernel has told all of it. Never rejects: `onGone` says that there is no more. */
  async run(request: ExecuteRequest, listener: Listener): Promise<void> {
    if (this.#gone !== undefined) {
      listener.onGone(this.#gone)
      return
    }
    await new Promise<void>((done) => {
      this.#runs.set(request.id, { ...listener, isIdle: false, isAnswered: false, done })
      this.#socket.send(executeRequest(this.#session, request))
    })
  }

  /** Reads on at the pace of who takes the messages. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  /** Ends all runs that have not ended, as after a restart; the line stays. */
  abandonRuns(reason: string): void {
    const runs = [...this.#runs.values()]
    this.#runs.clear()
    for (const run of runs) {
      run.onGone(reason)
      run.done()
    }
  }

  close(reason: string): void {
    this.#lose(reason)
    this.#socket.terminate()
  }

  #receive(text: string): void {
    const message = parseMessage(text)
    if (message.type === 'status' && ENDED_STATES.includes(message.content.execution_state)) {
      this.#ends++
      this.abandonRuns('The kernel ended while the code was running and was started anew.')
      return
    }
    const { parentId = '' } = message
    const run = this.#runs.get(parentId)
    if (run === undefined) return
    if (message.type === 'status') run.isIdle ||= message.content.execution_state === 'idle'
    else if (message.type === 'execute_reply') run.isAnswered = true
    else run.onMessage(message)
    // They come on two channels, in either order.
    if (!run.isIdle || !run.isAnswered) return
    this.#runs.delete(parentId)
    run.done()
  }

  #lose(reason: string): void {
    this.#gone ??= reason
    this.abandonRuns(reason)
  }
}
