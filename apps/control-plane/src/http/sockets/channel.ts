import { AppError } from '@wrenn/base'
import type { RawData, WebSocket } from 'ws'
import type { z } from 'zod'

const HIGH_WATER_BYTES = 1024 * 1024
/** Of one that waits, beside its bytes. */
const MESSAGE_BYTES = 256
const MAX_QUEUED_BYTES = 1024 * 1024
const PING_EVERY_MS = 30_000
/** How long a peer that is cut off may take to read why. */
const CUT_WITHIN_MS = 1_000

/** A message as it came; text frames are bytes too. */
export interface Message {
  readonly data: Buffer
  readonly isBinary: boolean
}

/** How the other side is kept awake and watched. */
export interface ChannelOptions {
  /** Called with every ping. */
  readonly onPing?: () => void
  /** @default 30 000 */
  readonly pingEveryMs?: number
}

/**
 * A WebSocket as two bounded flows: messages are taken one by one and stop coming while nobody takes them; sending waits
 * while a slow peer has more than 1 MiB to read. A peer that sends nothing from one ping to the next is gone. One that is not
 * read from, or does not read, is only slow: its pong waits behind other bytes.
 */
export class Channel {
  readonly #socket: WebSocket
  readonly #queue: Message[] = []
  readonly #closed = new AbortController()
  readonly #heartbeat: NodeJS.Timeout
  #queuedBytes = 0
  #waiting: (() => void) | undefined
  #alive = true

  /** Must be made in the same turn in which the socket was: later, messages would be missed. */
  constructor(socket: WebSocket, { onPing = () => {}, pingEveryMs = PING_EVERY_MS }: ChannelOptions = {}) {
    this.#socket = socket
    socket.on('message', (data: RawData, isBinary: boolean) => this.#receive(toBuffer(data), isBinary))
    socket.on('pong', () => {
      this.#alive = true
    })
    socket.on('error', () => {}) // a close follows
    socket.once('close', () => this.#end())
    this.#heartbeat = setInterval(() => this.#ping(onPing), pingEveryMs)
  }

  /** Ends when the peer is gone, or cut off. */
  get signal(): AbortSignal {
    return this.#closed.signal
  }

  /** Whether the client asked for binary frames by the subprotocol. */
  get binary(): boolean {
    return this.#socket.protocol !== ''
  }

  /** The next message; `undefined` when there will be none. */
  async next(): Promise<Message | undefined> {
    for (;;) {
      const message = this.#take()
      if (message !== undefined) return message
      if (this.signal.aborted) return undefined
      await new Promise<void>((resolve) => {
        this.#waiting = resolve
      })
    }
  }

  /** The next message if it is here already and `matches`. */
  takeIf(matches: (message: Message) => boolean): Message | undefined {
    const [first] = this.#queue
    return first === undefined || !matches(first) ? undefined : this.#take()
  }

  #take(): Message | undefined {
    const message = this.#queue.shift()
    this.#queuedBytes -= message === undefined ? 0 : sizeOf(message)
    if (this.#socket.isPaused && this.#queuedBytes < MAX_QUEUED_BYTES / 2) this.#socket.resume()
    return message
  }

  /** JSON of an object, bytes as they are. Does nothing once the peer is gone. */
  async send(message: object | Uint8Array): Promise<void> {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    const data = message instanceof Uint8Array ? message : JSON.stringify(message)
    if (this.#socket.bufferedAmount < HIGH_WATER_BYTES) this.#socket.send(data, () => {})
    else await new Promise<void>((resolve) => this.#socket.send(data, () => resolve()))
  }

  /** With a close code of RFC 6455, section 7.4; `reason` has at most 123 bytes. */
  close(code: number, reason: string): void {
    this.#socket.close(code, reason)
  }

  /**
   * Closes on a peer that must do nothing more: no message of it counts from now on, whether it answers the close or not, and one that
   * does not read is not waited for.
   */
  cutOff(last: object, code: number, reason: string): void {
    if (this.signal.aborted) return
    this.#socket.send(JSON.stringify(last), () => {})
    this.close(code, reason)
    const overdue = setTimeout(() => this.#socket.terminate(), CUT_WITHIN_MS)
    this.#socket.once('close', () => clearTimeout(overdue))
    this.#queue.length = 0
    this.#queuedBytes = 0
    this.#end()
    if (this.#socket.isPaused) this.#socket.resume()
  }

  #receive(data: Buffer, isBinary: boolean): void {
    this.#alive = true
    if (this.signal.aborted) return
    const message = { data, isBinary }
    this.#queue.push(message)
    this.#queuedBytes += sizeOf(message)
    if (this.#queuedBytes > MAX_QUEUED_BYTES) this.#socket.pause()
    this.#wake()
  }

  #ping(onPing: () => void): void {
    const isSlow = this.#socket.isPaused || this.#socket.bufferedAmount > 0
    if (!this.#alive && !isSlow) {
      this.#socket.terminate()
      return
    }
    this.#alive = false
    this.#socket.ping()
    onPing()
  }

  #end(): void {
    clearInterval(this.#heartbeat)
    this.#closed.abort()
    this.#wake()
  }

  #wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }
}

function toBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)
}

/** Reads a JSON frame. @throws AppError `invalid_request` */
export function parseFrame<Schema extends z.ZodType>(message: Message, schema: Schema): z.output<Schema> {
  const parsed = schema.safeParse(parseJson(message))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new AppError('invalid_request', `${issue?.path.join('.') || 'frame'}: ${issue?.message ?? 'is not valid'}`)
}

function parseJson({ data, isBinary }: Message): unknown {
  if (isBinary) throw new AppError('invalid_request', 'A text frame with JSON was expected.')
  try {
    return JSON.parse(data.toString('utf8'))
  } catch {
    throw new AppError('invalid_request', 'The frame is not JSON.')
  }
}

/** What a message takes while it waits: an empty one, too. */
function sizeOf({ data }: Message): number {
  return data.length + MESSAGE_BYTES
}
