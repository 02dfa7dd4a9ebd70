import { createError, ProcessNotFoundError } from './errors.js'
import { Session, type SessionEvent, type SessionExit, type SessionPlan } from './session.js'
import type { Transport } from './transport.js'
import type { SignalName } from './types.js'

/** What a process says. Bytes, because output need not be text; `offset` counts all its output. */
export type ProcessEvent = Exclude<SessionEvent, { type: 'start' }>
/** How a process ended: the last of its events. */
export type ProcessExit = SessionExit

type Events = AsyncGenerator<SessionEvent, void, undefined>

/** What processes and terminals have in common. Not reading the events slows the process down. */
abstract class Followed implements AsyncDisposable {
  /** 0 while attached to a terminal whose pid was not told. */
  readonly pid: number
  /** Its name; use it to attach again later, from anywhere. */
  readonly tag: string
  protected readonly session: Session
  readonly #events: Events
  readonly #transport: Transport
  readonly #plan: SessionPlan
  #pending: ProcessEvent | undefined
  #exit: ProcessExit | undefined

  constructor(opened: OpenedSession) {
    this.session = opened.session
    this.#events = opened.events
    this.#transport = opened.transport
    this.#plan = opened.plan
    const { first, plan } = opened
    this.pid = first.type === 'start' ? first.pid : 0
    this.tag = first.type === 'start' ? first.tag : plan.selector
    if (first.type !== 'start') this.#pending = first
  }

  /** Its exit, once that has been read from the events. */
  get exit(): ProcessExit | undefined {
    return this.#exit
  }

  /** Output and exit in their order. Leaving the loop early disconnects and lets the process run on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ProcessEvent, void, undefined> {
    if (this.#pending) {
      const event = this.#pending
      this.#pending = undefined
      yield this.#noted(event)
    }
    for await (const event of this.#events) if (event.type !== 'start') yield this.#noted(event)
  }

  #noted(event: ProcessEvent): ProcessEvent {
    if (event.type === 'exit') this.#exit = event
    return event
  }

  /** Reads the rest of the output, dropping it, and gives the exit. */
  async wait(): Promise<ProcessExit> {
    for await (const event of this) if (event.type === 'exit') return event
    if (this.#exit) return this.#exit
    throw createError('The process was disconnected before it ended.', { code: 'connection_lost' })
  }

  /** Kills the process and all its children. Fine when it has ended already. */
  async kill(signal: SignalName = 'SIGKILL'): Promise<void> {
    const { capsuleId, selector } = this.#plan
    const path = `/v1/capsules/${capsuleId}/processes/${encodeURIComponent(selector)}`
    try {
      await this.#transport.send('DELETE', path, { query: { signal } })
    } catch (error) {
      if (!(error instanceof ProcessNotFoundError)) throw error
    }
  }

  /** Ends the connection, not the process. */
  disconnect(): void {
    this.session.disconnect()
  }

  /** Kills it unless it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.disconnect()
    if (!this.#exit) await this.kill()
  }
}

/** A running process: its events, its input, signals. */
export class ProcessHandle extends Followed {
  /** Needs `stdin: true` at the start. Resolves when little enough is on its way to send more. */
  async write(data: string | Uint8Array): Promise<void> {
    await this.session.sendInput(data)
  }

  /** Ends the input, as ^D does. */
  async closeStdin(): Promise<void> {
    await this.session.sendFrame({ type: 'stdin_close' })
  }

  /** To the process and its children. Resolves when it is on its way; a refusal comes as an error of the events. */
  async signal(name: SignalName): Promise<void> {
    await this.session.sendFrame({ type: 'signal', signal: name })
  }
}

/** A terminal: one stream of output, input as typed, a size. */
export class PtyHandle extends Followed {
  /** As if typed: a line ends with `\r`, and `\x03` is ^C. Resolves when little enough is on its way to send more. */
  async write(data: string | Uint8Array): Promise<void> {
    await this.session.sendInput(data)
  }

  /** Columns and lines, 1 to 65535; programs in it get SIGWINCH. */
  async resize(cols: number, rows: number): Promise<void> {
    await this.session.sendFrame({ type: 'resize', cols, rows })
  }
}

/** A connection on which the first message has come: the process runs. A handle takes all of it over. */
export interface OpenedSession {
  readonly session: Session
  /** All after `first`; may be read once. */
  readonly events: Events
  /** Usually `start`. Someone who attached from an offset may see output first, which must not be lost. */
  readonly first: SessionEvent
  readonly transport: Transport
  readonly plan: SessionPlan
}

/** Connects and waits until the process runs. */
export async function openSession(transport: Transport, plan: SessionPlan): Promise<OpenedSession> {
  const session = new Session(transport, plan)
  const events = session.events()
  const first = await events.next()
  if (first.done) throw createError('The stream ended before the process started.', { code: 'connection_lost' })
  return { session, events, first: first.value, transport, plan }
}
