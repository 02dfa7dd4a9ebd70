import { BINARY_SUBPROTOCOL } from '@wrenn/protocol'
import { ConnectionError } from './errors.js'
import { delay } from './wait.js'

/** What this client needs of a WebSocket: the browser's, or the class of the `ws` package. */
export interface WebSocketLike {
  binaryType: string
  /** Bytes handed over that the network has not taken. */
  readonly bufferedAmount: number
  /** The subprotocol that the server chose; empty for none. */
  readonly protocol: string
  send(data: string | Uint8Array<ArrayBuffer>): void
  close(code?: number, reason?: string): void
  // biome-ignore lint/suspicious/noExplicitAny: the event types of browsers and of ws have nothing in common but this
  addEventListener(type: string, listener: (event: any) => void): void
  /** Only in `ws`: stops reading from the network, so that a slow reader slows the sender instead of filling memory. */
  pause?(): void
  resume?(): void
}
/** A class such as the global `WebSocket`; the subprotocol asks for output as binary frames. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike

const HIGH_WATER_BYTES = 4 * 1024 * 1024
const LOW_WATER_BYTES = 1024 * 1024
const SEND_WATER_BYTES = 1024 * 1024
const SEND_POLL_MS = 2
const OPEN_TIMEOUT_MS = 20_000

/** A text frame (JSON) as a string, a binary frame as bytes. */
export type Message = string | Uint8Array

/** One WebSocket as an async queue of messages. It never reconnects; whoever uses it decides that. */
export class Socket {
  readonly #socket: WebSocketLike
  #queue: Message[] = []
  #queuedBytes = 0
  #paused = false
  #closed = false
  #wake: (() => void) | undefined

  private constructor(socket: WebSocketLike) {
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    socket.addEventListener('message', (event: { data: string | ArrayBuffer }) => this.#push(event.data))
    socket.addEventListener('close', () => this.#end())
    socket.addEventListener('error', () => this.#end())
  }

  /** @throws ConnectionError when the handshake fails or takes too long. */
  static async open(
    Constructor: WebSocketConstructor | undefined,
    url: string,
    apiKey: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Socket> {
    if (!Constructor) throw noWebSocket()
    signal?.throwIfAborted()
    const raw = new Constructor(url, [BINARY_SUBPROTOCOL])
    const socket = new Socket(raw)
    await new Promise<void>((resolve, reject) => {
      const fail = (reason: unknown): void => {
        clearTimeout(timer)
        raw.close()
        reject(reason)
      }
      const timer = setTimeout(() => fail(refused(`no answer in ${OPEN_TIMEOUT_MS} ms`)), OPEN_TIMEOUT_MS)
      const onAbort = (): void => fail(signal?.reason)
      signal?.addEventListener('abort', onAbort, { once: true })
      raw.addEventListener('open', () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        resolve()
      })
      raw.addEventListener('error', (event: { message?: string }) => fail(refused(event.message ?? 'handshake failed')))
      raw.addEventListener('close', () => fail(refused('closed during the handshake')))
    })
    // In the first message, because a browser cannot add headers to a handshake.
    if (apiKey) socket.sendJson({ type: 'auth', api_key: apiKey })
    return socket
  }

  /** The server agreed to carry output as binary frames. */
  get isBinary(): boolean {
    return this.#socket.protocol === BINARY_SUBPROTOCOL
  }

  get isClosed(): boolean {
    return this.#closed
  }

  /** Bytes handed over that the network has not taken; what is counted may be gone when the connection drops. */
  get unsentBytes(): number {
    return this.#socket.bufferedAmount
  }

  /** Dropped without a word once the connection is over; whoever reads hears of that. */
  sendJson(frame: object): void {
    if (!this.#closed) this.#socket.send(JSON.stringify(frame))
  }

  /** Sends and waits while too much is still on its way out. */
  async sendSlowly(message: string | Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#closed) return
    this.#socket.send(message)
    while (!this.#closed && this.#socket.bufferedAmount > SEND_WATER_BYTES) await delay(SEND_POLL_MS)
  }

  /** The next message, or `undefined` when the connection is over. */
  async next(): Promise<Message | undefined> {
    while (this.#queue.length === 0) {
      if (this.#closed) return undefined
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const message = this.#queue.shift()
    this.#queuedBytes -= message?.length ?? 0
    if (this.#paused && this.#queuedBytes < LOW_WATER_BYTES) {
      this.#paused = false
      this.#socket.resume?.()
    }
    return message
  }

  /** Also when it is closed already. What is queued may still be read. */
  close(): void {
    // A paused connection would never read the answer to its close.
    if (this.#paused) this.#socket.resume?.()
    this.#socket.close(1000)
    this.#end()
  }

  #push(data: string | ArrayBuffer): void {
    const message = typeof data === 'string' ? data : new Uint8Array(data)
    this.#queue.push(message)
    this.#queuedBytes += message.length
    if (!this.#paused && this.#queuedBytes > HIGH_WATER_BYTES) {
      this.#paused = true
      this.#socket.pause?.()
    }
    this.#wakeUp()
  }

  #end(): void {
    this.#closed = true
    this.#wakeUp()
  }

  #wakeUp(): void {
    this.#wake?.()
    this.#wake = undefined
  }
}

function refused(why: string): ConnectionError {
  return new ConnectionError(`The WebSocket could not be opened: ${why}.`, { code: 'connection_failed' })
}

function noWebSocket(): ConnectionError {
  return new ConnectionError('This runtime has no WebSocket.', {
    code: 'connection_failed',
    hint: "On Node.js 20, pass one: `import { WebSocket } from 'ws'` and `new Wrenn({ webSocket: WebSocket })`.",
  })
}
