import { decodeBinaryFrame, encodeBinaryFrame } from '@wrenn/protocol'
import { fromBase64, toBase64, toBytes } from './bytes.js'
import { ConnectionError, createError, ProcessNotFoundError, WrennError } from './errors.js'
import { Patience } from './patience.js'
import { SleepWatch } from './sleep-watch.js'
import { type Message, Socket } from './socket.js'
import type { Transport } from './transport.js'
import type { CapsuleState } from './types.js'

/** How long a dropped connection is tried again before the session gives up. */
const DEFAULT_RECONNECT_MS = 60_000
/** A connection that lasted this long was a good one, also when nothing was said on it. */
const SETTLED_MS = 5_000
const STATE_TIMEOUT_MS = 10_000
/** Servers refuse frames of more than 4 MiB. */
const INPUT_FRAME_BYTES = 256 * 1024
/** Input sent this long before a drop, with nothing left in the buffer, has arrived. */
const INPUT_SETTLED_MS = 10_000

/**
 * `lost` and `restored`: the connection; the process runs on. `paused` and `resumed`: the capsule; the process stands still,
 * and goes on where it was.
 */
export type ConnectionState = 'lost' | 'restored' | 'paused' | 'resumed'

/**
 * `start` once; `stdout` and `stderr` of a process, `output` of a terminal, which mixes them; `lost` for bytes [from, to)
 * that the guest no longer keeps; and the exit, after which nothing comes. Offsets count all output of the process, both
 * streams together.
 */
export type SessionEvent =
  | { readonly type: 'start'; readonly pid: number; readonly tag: string }
  | { readonly type: 'stdout' | 'stderr' | 'output'; readonly data: Uint8Array; readonly offset: number }
  | { readonly type: 'lost'; readonly from: number; readonly to: number }
  | SessionExit
/** The end of a process in the shell's terms. */
export interface SessionExit {
  readonly type: 'exit'
  /** 128 + n when signal n ended it, 124 after its `timeoutMs`. */
  readonly exitCode: number
  /** Number of the signal that ended it. */
  readonly signal: number | undefined
  /** Killed because its `timeoutMs` was over. */
  readonly timedOut: boolean
  /** The guest's kernel ended it for want of memory. */
  readonly oomKilled: boolean
}

/** Where to connect, and the first message there. */
export interface Route {
  readonly path: string
  readonly query?: Readonly<Record<string, string | number | undefined>>
  /** Sent as soon as the connection is open. @default the server speaks first */
  readonly frame?: object
}

/** How a session connects the first time and after each drop, and what it may lose on the way. */
export interface SessionPlan {
  readonly capsuleId: string
  /** What names the process in the resume route. */
  readonly selector: string
  /** Absent: attach only. */
  readonly start: Route | undefined
  /** The route that follows the running process from this byte of its output; `undefined`: from now on. */
  readonly resume: (fromOffset: number | undefined) => Route
  readonly fromOffset?: number
  /** Ends the session with its reason, not the process. */
  readonly signal?: AbortSignal
  /** Time in which the capsule is paused does not count. @default 60_000 */
  readonly reconnectMs?: number
  /** A person typing sees what did not arrive; a pipe cannot, so there a drop with input under way is an error. */
  readonly inputMayBeLost: boolean
  /** Type of the JSON frame that carries input where binary frames are not spoken. */
  readonly inputType: 'stdin' | 'input'
  /** Also makes the session ask for the capsule's state, which it does not need otherwise. */
  readonly onConnection?: (state: ConnectionState) => void
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
  readonly state?: CapsuleState
}

/**
 * A process's output as events that survive its connections: every byte has an offset, a dropped connection is opened again
 * from the next one, and the process never notices. While the capsule is paused the session waits.
 */
export class Session {
  readonly #transport: Transport
  readonly #plan: SessionPlan
  #socket: Socket | undefined
  #opening: Promise<Socket> | undefined
  #nextOffset: number | undefined
  #started = false
  readonly #patience: Patience
  readonly #watch: SleepWatch
  /** Aborts when the session ends, by whichever side. */
  readonly #end = new AbortController()
  readonly #signal: AbortSignal
  #openedAt = 0
  #lastInputAt = 0
  #isSending = false

  constructor(transport: Transport, plan: SessionPlan) {
    this.#transport = transport
    this.#plan = plan
    this.#nextOffset = plan.fromOffset
    this.#patience = new Patience(plan.reconnectMs ?? DEFAULT_RECONNECT_MS)
    this.#watch = new SleepWatch(
      () => this.#capsuleState(),
      (state) => plan.onConnection?.(state),
    )
    this.#signal = plan.signal ? AbortSignal.any([plan.signal, this.#end.signal]) : this.#end.signal
    this.#signal.addEventListener('abort', () => this.#socket?.close(), { once: true })
  }

  /**
   * All events in their order; to be read once. Not reading them slows the process down. Leaving the loop disconnects.
   * @throws WrennError `connection_lost` after `reconnectMs` without a connection, `rolled_back`, `invalid_state` when the
   * capsule ended, `process_not_found`
   */
  async *events(): AsyncGenerator<SessionEvent, void, undefined> {
    if (this.#plan.onConnection) void this.#watch.run(this.#signal)
    try {
      while (!this.#end.signal.aborted) {
        const socket = await this.#connected()
        for (let message = await socket.next(); message !== undefined; message = await socket.next()) {
          const event = this.#read(message)
          if (event) yield event
          if (event?.type === 'exit') return
        }
        if (!this.#end.signal.aborted) this.#dropped(socket)
      }
    } catch (error) {
      if (!this.#end.signal.aborted || this.#plan.signal?.aborted) throw error
    } finally {
      this.disconnect()
    }
  }

  /** Leaves the process running. */
  disconnect(): void {
    this.#end.abort(createError('The session was disconnected.', { code: 'connection_lost' }))
  }

  /** In frames of 256 KiB; resolves when little enough is on its way to send more. */
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

  /** A JSON frame on the open connection, which is waited for; one that drops under way loses it. */
  async sendFrame(frame: object): Promise<void> {
    const socket = await this.#connected()
    socket.sendJson(frame)
  }

  #dropped(socket: Socket): void {
    this.#plan.signal?.throwIfAborted()
    this.#socket = undefined
    this.#watch.untold()
    if (this.#isPatienceOver()) throw createError('The connection broke again and again.', { code: 'connection_lost' })
    const unsettled = this.#lastInputAt > 0 && performance.now() - this.#lastInputAt < INPUT_SETTLED_MS
    if (!this.#plan.inputMayBeLost && (this.#isSending || unsettled || socket.unsentBytes > 0)) {
      throw createError('The connection broke while input was being sent; some of it may not have arrived.', {
        code: 'connection_lost',
      })
    }
    this.#plan.onConnection?.('lost')
  }

  #isPatienceOver(): boolean {
    if (performance.now() - this.#openedAt > SETTLED_MS) this.#patience.reset()
    return this.#patience.isOver
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
    for (;;) {
      await this.#patience.nextTry(this.#signal)
      try {
        // A pause may last longer than any patience; and to connect could wake a capsule that somebody just paused.
        if (this.#started && (await this.#watch.untilAwake(this.#signal))) this.#patience.reset()
        const socket = await this.#open()
        this.#socket = socket
        this.#openedAt = performance.now()
        if (this.#started) this.#plan.onConnection?.('restored')
        return socket
      } catch (error) {
        // Before anything has started there is nothing to come back to: say at once what is wrong.
        const again = error instanceof WrennError && error.isRetryable && this.#started && !this.#patience.isOver
        if (!again || this.#signal.aborted) throw error
      }
    }
  }

  async #open(): Promise<Socket> {
    const { start, resume } = this.#plan
    const route = !this.#started && start ? start : resume(this.#nextOffset)
    const { webSocket } = this.#transport.options
    try {
      // Only who hears of pauses needs to know of them.
      const states = this.#plan.onConnection ? { states: 'true' } : {}
      const apiKey = await this.#transport.apiKey()
      // A page of the platform itself may have cookies of somebody else.
      const auth = apiKey ? { auth: 'message' } : {}
      const url = this.#transport.socketUrl(route.path, { ...route.query, ...states, ...auth })
      await this.#transport.page?.makeFresh()
      const socket = await Socket.open(webSocket, url, apiKey, this.#signal)
      if (route.frame) socket.sendJson(route.frame)
      return socket
    } catch (error) {
      if (error instanceof ConnectionError && webSocket) await this.#explain(route === start)
      throw error
    }
  }

  /** A browser does not tell why a handshake failed; REST does, by throwing the real error. */
  async #explain(starting: boolean): Promise<void> {
    const state = await this.#capsuleState()
    // Paused just now, or its host does not answer: the next try waits for it.
    if (this.#started && state !== 'running') return
    if (state !== 'running') throw notRunning(state)
    if (starting) return
    const { processes } = await this.#ask<{ processes: { pid: number; tag?: string }[] }>('/processes')
    const { selector } = this.#plan
    if (processes.some((one) => one.tag === selector || String(one.pid) === selector)) return
    throw new ProcessNotFoundError(`The capsule has no process ${selector}.`, {
      code: 'process_not_found',
      status: 404,
    })
  }

  /** @throws InvalidStateError when the capsule has ended, so that the session has too. */
  async #capsuleState(): Promise<CapsuleState> {
    const { state } = await this.#ask<{ state: CapsuleState }>('')
    if (this.#started && (state === 'stopping' || state === 'stopped' || state === 'error')) throw notRunning(state)
    return state
  }

  async #ask<T>(path: string): Promise<T> {
    const options = { idempotent: false, signal: this.#signal, requestTimeoutMs: STATE_TIMEOUT_MS }
    return await this.#transport.json<T>('GET', `/v1/capsules/${this.#plan.capsuleId}${path}`, options)
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
        // Also a process that has said nothing yet has a place to come back to.
        this.#nextOffset ??= frame.offset
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
      case 'state':
        if (frame.state) this.#watch.told(frame.state)
        return undefined
      case 'error':
        return this.#failed(frame)
      default:
        return undefined
    }
  }

  #output(type: 'stdout' | 'stderr' | 'output', data: Uint8Array, at: number | undefined): SessionEvent | undefined {
    this.#started = true
    this.#patience.reset()
    this.#watch.heard()
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
    // The way to the guest broke or the capsule was paused, not the process: come back to it as after any drop.
    const isTransient = error.isRetryable || error.code === 'invalid_state'
    if (this.#started && isTransient && !this.#isPatienceOver()) {
      this.#socket?.close()
      return undefined
    }
    throw error
  }
}

function notRunning(state: CapsuleState): WrennError {
  return createError(`The capsule is ${state}, not running.`, { code: 'invalid_state', status: 409 })
}

function decode(frame: Frame): Uint8Array {
  const text = frame.data ?? ''
  return frame.type === 'output' || frame.encoding === 'base64' ? fromBase64(text) : toBytes(text)
}

function frameOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = encodeBinaryFrame('input', 0, bytes)
  return new Uint8Array(frame.buffer as ArrayBuffer, frame.byteOffset, frame.length) // made above, never shared
}
