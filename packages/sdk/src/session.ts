import { decodeBinaryFrame, encodeBinaryFrame } from '@wrenn/protocol'
import { fromBase64, toBase64, toBytes } from './bytes.js'
import { ConnectionError, createError, ProcessNotFoundError } from './errors.js'
import { type Message, Socket } from './socket.js'
import type { Transport } from './transport.js'
import type { CapsuleInfo } from './types.js'
import { backoffMs, delay } from './wait.js'

/** How long a dropped connection is tried again before the session gives up. */
const DEFAULT_RECONNECT_MS = 60_000
/** Servers refuse frames of more than 4 MiB. */
const INPUT_FRAME_BYTES = 256 * 1024
/** Input sent this long before a drop, with nothing left in the buffer, has arrived. */
const INPUT_SETTLED_MS = 10_000

export type SessionEvent =
  | { readonly type: 'start'; readonly pid: number; readonly tag: string }
  | { readonly type: 'stdout' | 'stderr' | 'output'; readonly data: Uint8Array; readonly offset: number }
  | { readonly type: 'lost'; readonly from: number; readonly to: number }
  | SessionExit
export interface SessionExit {
  readonly type: 'exit'
  readonly exitCode: number
  /** Number of the signal that ended it. */
  readonly signal: number | undefined
  readonly timedOut: boolean
  readonly oomKilled: boolean
}

/** Where to connect, and the first message there. */
export interface Route {
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | undefined>>
  readonly frame?: object
}

export interface SessionPlan {
  readonly capsuleId: string
  /** What names the process in the resume route. */
  readonly selector: string
  /** Absent: attach only. */
  readonly start: Route | undefined
  readonly resume: (fromOffset: number | undefined) => Route
  readonly fromOffset?: number
  readonly signal?: AbortSignal
  /** @default 60_000 */
  readonly reconnectMs?: number
  /** A person typing sees what did not arrive; a pipe cannot, so there a drop with input under way is an error. */
  readonly inputMayBeLost: boolean
  /** Type of the JSON frame that carries input where binary frames are not spoken. */
  readonly inputType: 'stdin' | 'input'
  /** Told when the connection dropped, and again when it is back. */
  readonly onConnection?: (state: 'lost' | 'restored') => void
}

/** The one JSON shape all stream routes share, read leniently. */
interface Frame {
  readonly type: string
  readonly pid?: number
  readonly tag?: string
  readonly data?: string
  readonly offset?: number
  readonly encoding?: string
  readonly from?: number
  readonly to?: number
  readonly exit_code?: number
  readonly signal?: number
  readonly timed_out?: boolean
  readonly oom_killed?: boolean
  readonly code?: string
  readonly fatal?: boolean
  readonly hint?: string
}

/**
 * A process's output as events that survive its connections: every byte has an offset, a dropped connection is opened again
 * from the next one, and the process never notices.
 */
export class Session {
  readonly #transport: Transport
  readonly #plan: SessionPlan
  #socket: Socket | undefined
  #opening: Promise<Socket> | undefined
  #nextOffset: number | undefined
  #started = false
  #disconnected = false
  #lastInputAt = 0
  #isSending = false

  constructor(transport: Transport, plan: SessionPlan) {
    this.#transport = transport
    this.#plan = plan
    this.#nextOffset = plan.fromOffset
    plan.signal?.addEventListener('abort', () => this.#socket?.close(), { once: true })
  }

  async *events(): AsyncGenerator<SessionEvent, void, undefined> {
    try {
      while (!this.#disconnected) {
        const socket = await this.#connected()
        for (let message = await socket.next(); message !== undefined; message = await socket.next()) {
          const event = this.#read(message)
          if (event) yield event
          if (event?.type === 'exit') return
        }
        if (!this.#disconnected) this.#dropped(socket)
      }
    } finally {
      this.disconnect()
    }
  }

  /** Leaves the process running. */
  disconnect(): void {
    this.#disconnected = true
    this.#socket?.close()
  }

  async sendInput(data: string | Uint8Array): Promise<void> {
    const bytes = toBytes(data)
    for (let at = 0; at < bytes.length; at += INPUT_FRAME_BYTES) {
      const piece = bytes.subarray(at, at + INPUT_FRAME_BYTES)
      const socket = await this.#connected()
      this.#isSending = true
      const json = (): string => JSON.stringify({ type: this.#plan.inputType, data: toBase64(piece) })
      await socket.sendSlowly(socket.isBinary ? frameOf(piece) : json())
      this.#isSending = false
      this.#lastInputAt = performance.now()
    }
  }

  async sendFrame(frame: object): Promise<void> {
    const socket = await this.#connected()
    socket.sendJson(frame)
  }

  #dropped(socket: Socket): void {
    this.#plan.signal?.throwIfAborted()
    this.#socket = undefined
    const unsettled = this.#lastInputAt > 0 && performance.now() - this.#lastInputAt < INPUT_SETTLED_MS
    if (!this.#plan.inputMayBeLost && (this.#isSending || unsettled || socket.unsentBytes > 0)) {
      throw createError('The connection broke while input was being sent; some of it may not have arrived.', {
        code: 'connection_lost',
      })
    }
    this.#plan.onConnection?.('lost')
  }

  /** The open connection; readers and writers that find none share one attempt to open it. */
  async #connected(): Promise<Socket> {
    if (this.#socket) return this.#socket
    this.#opening ??= this.#reopen().finally(() => {
      this.#opening = undefined
    })
    return await this.#opening
  }

  async #reopen(): Promise<Socket> {
    const deadline = performance.now() + (this.#plan.reconnectMs ?? DEFAULT_RECONNECT_MS)
    for (let attempt = 0; ; attempt += 1) {
      try {
        const socket = await this.#open()
        this.#socket = socket
        if (this.#started) this.#plan.onConnection?.('restored')
        return socket
      } catch (error) {
        // Before anything has started there is nothing to come back to: say at once what is wrong.
        const again = error instanceof ConnectionError && this.#started && performance.now() < deadline
        if (!again || this.#disconnected) throw error
        await delay(backoffMs(attempt), this.#plan.signal)
      }
    }
  }

  async #open(): Promise<Socket> {
    const { start, resume, signal } = this.#plan
    const route = !this.#started && start ? start : resume(this.#nextOffset)
    const { webSocket, apiKey } = this.#transport.options
    try {
      const url = this.#transport.socketUrl(route.path, route.query)
      const socket = await Socket.open(webSocket, url, apiKey, signal)
      if (route.frame) socket.sendJson(route.frame)
      return socket
    } catch (error) {
      if (error instanceof ConnectionError && webSocket) await this.#explain(route === start)
      throw error
    }
  }

  /** A browser does not tell why a handshake failed; REST does, by throwing the real error. */
  async #explain(starting: boolean): Promise<void> {
    const path = `/v1/capsules/${this.#plan.capsuleId}`
    const options = { idempotent: false, ...(this.#plan.signal ? { signal: this.#plan.signal } : {}) }
    const capsule = await this.#transport.json<Pick<CapsuleInfo, 'state'>>('GET', path, options)
    if (capsule.state !== 'running') {
      throw createError(`The capsule is ${capsule.state}, not running.`, { code: 'invalid_state', status: 409 })
    }
    if (starting) return
    const { processes } = await this.#transport.json<{ processes: { pid: number; tag?: string }[] }>(
      'GET',
      `${path}/processes`,
      options,
    )
    const { selector } = this.#plan
    if (processes.some((one) => one.tag === selector || String(one.pid) === selector)) return
    throw new ProcessNotFoundError(`The capsule has no process ${selector}.`, {
      code: 'process_not_found',
      status: 404,
    })
  }

  #read(message: Message): SessionEvent | undefined {
    if (typeof message !== 'string') {
      const frame = decodeBinaryFrame(message)
      if (!frame || frame.kind === 'input') return undefined
      return this.#output(frame.kind, frame.payload, frame.offset)
    }
    const frame: Frame = JSON.parse(message)
    return this.#readFrame(frame)
  }

  #readFrame(frame: Frame): SessionEvent | undefined {
    switch (frame.type) {
      case 'start':
      case 'started':
        if (this.#started) return undefined
        this.#started = true
        return { type: 'start', pid: frame.pid ?? 0, tag: frame.tag ?? this.#plan.selector }
      case 'stdout':
      case 'stderr':
      case 'output':
        return this.#output(frame.type, decode(frame), frame.offset)
      case 'lost':
        this.#nextOffset = frame.to
        return { type: 'lost', from: frame.from ?? 0, to: frame.to ?? 0 }
      case 'exit':
        return {
          type: 'exit',
          exitCode: frame.exit_code ?? 0,
          signal: frame.signal,
          timedOut: frame.timed_out ?? false,
          oomKilled: frame.oom_killed ?? false,
        }
      case 'error':
        return this.#failed(frame)
      default:
        return undefined
    }
  }

  #output(type: 'stdout' | 'stderr' | 'output', data: Uint8Array, at: number | undefined): SessionEvent | undefined {
    this.#started = true
    const offset = at ?? this.#nextOffset ?? 0
    this.#nextOffset = offset + data.length
    return { type, data, offset }
  }

  #failed(frame: Frame): undefined {
    if (frame.fatal === false) return undefined
    const error = createError(frame.data ?? 'The stream failed.', {
      code: frame.code ?? 'internal',
      ...(frame.hint ? { hint: frame.hint } : {}),
    })
    // The way to the guest broke, not the process: come back to it as after any drop.
    if (this.#started && error.isRetryable) {
      this.#socket?.close()
      return undefined
    }
    throw error
  }
}

function decode(frame: Frame): Uint8Array {
  const text = frame.data ?? ''
  return frame.type === 'output' || frame.encoding === 'base64' ? fromBase64(text) : toBytes(text)
}

function frameOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = encodeBinaryFrame('input', 0, bytes)
  return new Uint8Array(frame.buffer as ArrayBuffer, frame.byteOffset, frame.length) // made above, never shared
}
