import { connect, type Socket } from 'node:net'
import { AppError, errorText } from '@wrenn/base'

/** Longest a command may take before QEMU counts as stuck; commands that start long work answer at once and report by event. */
export const QMP_COMMAND_DEADLINE_MS = 10_000
/** Longest wait for the greeting: QEMU serves one client per monitor and may first have to notice that the last one is gone. */
export const QMP_GREETING_DEADLINE_MS = 5_000
/** A line longer than this is not QMP; it bounds what a broken peer can make us hold. */
const MAX_LINE_BYTES = 16 * 1024 * 1024

/** An asynchronous message of the monitor, such as `STOP` or `MIGRATION`; `data` is empty where QEMU sends none. */
export interface QmpEvent {
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

/** How patient one command is. */
export interface QmpCommandOptions {
  /** @default QMP_COMMAND_DEADLINE_MS */
  readonly deadlineMs?: number
}

interface Waiting {
  readonly command: string
  readonly timer: NodeJS.Timeout
  resolve(value: unknown): void
  reject(error: AppError): void
}

type Listener = (event: QmpEvent) => void

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function parseMessage(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const message: unknown = JSON.parse(line)
    return isRecord(message) ? message : undefined
  } catch {
    return undefined
  }
}

/**
 * A client of the QEMU Machine Protocol over a connected stream: commands matched by id, events to listeners.
 * https://www.qemu.org/docs/master/interop/qmp-spec.html
 */
export class QmpClient {
  /** Resolves once, when the connection is gone for whatever reason; never rejects. */
  readonly closed: Promise<void>
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Set<Listener>()
  readonly #greeting: Promise<void>
  #greeted: (() => void) | undefined
  #nextId = 1
  #partial = ''
  #goneBecause: string | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    this.#greeting = new Promise((resolve) => {
      this.#greeted = resolve
    })
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#fail(this.#goneBecause ?? 'QEMU closed its monitor')
        resolve()
      })
    })
    socket.on('error', (error) => {
      this.#goneBecause ??= errorText(error)
    })
    socket.on('data', (chunk: string) => this.#receive(chunk))
  }

  /** Takes over a connected socket and negotiates. The socket belongs to the client, also when this throws. */
  static async over(socket: Socket): Promise<QmpClient> {
    const client = new QmpClient(socket)
    try {
      await client.#handshake()
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  /**
   * Connects to a monitor that QEMU serves at `path`.
   * @throws AppError `engine_failure` when nobody listens there, or no greeting comes in time.
   */
  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', (cause) =>
        reject(new AppError('engine_failure', `QEMU's monitor is not reachable: ${cause.message}.`, { cause })),
      )
    })
    return QmpClient.over(socket)
  }

  /**
   * Runs one command and gives what QEMU returned.
   * @throws AppError `engine_failure` when QEMU refuses it, does not answer in time, or goes away.
   */
  execute(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    { deadlineMs = QMP_COMMAND_DEADLINE_MS }: QmpCommandOptions = {},
  ): Promise<unknown> {
    if (this.#goneBecause !== undefined) return Promise.reject(this.#gone(command, this.#goneBecause))
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new AppError('engine_failure', `QEMU did not answer ${command} within ${deadlineMs} ms.`))
      }, deadlineMs)
      this.#waiting.set(id, { command, timer, resolve, reject })
      this.#socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`)
    })
  }

  /** Calls `listener` for every event until the returned function is called. */
  onEvent(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Drops the connection; QEMU and its guest go on. Commands that wait are rejected. */
  close(): void {
    this.#goneBecause ??= 'the connection was closed on our side'
    this.#socket.destroy()
  }

  async #handshake(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const message = `QEMU's monitor sent no greeting within ${QMP_GREETING_DEADLINE_MS} ms; another client may hold it.`
        reject(new AppError('engine_failure', message))
      }, QMP_GREETING_DEADLINE_MS)
    })
    const lost = this.closed.then(() => {
      throw this.#gone('its greeting', this.#goneBecause ?? 'QEMU closed its monitor')
    })
    try {
      await Promise.race([this.#greeting, late, lost])
    } finally {
      clearTimeout(timer)
      lost.catch(() => {}) // a later close is reported through `closed`
    }
    await this.execute('qmp_capabilities')
  }

  #receive(chunk: string): void {
    const lines = (this.#partial + chunk).split('\n')
    this.#partial = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') this.#receiveLine(line)
    if (this.#partial.length > MAX_LINE_BYTES) this.#breakOff('QEMU sent an endless line on its monitor')
  }

  #receiveLine(line: string): void {
    const message = parseMessage(line)
    if (message === undefined) this.#breakOff('QEMU sent something other than a JSON object on its monitor')
    else if ('QMP' in message) this.#greeted?.()
    else if (typeof message.event === 'string') this.#emit(message.event, message.data)
    else if (typeof message.id === 'number') this.#settle(message.id, message)
  }

  #emit(event: string, data: unknown): void {
    const seen: QmpEvent = { event, data: isRecord(data) ? data : {} }
    for (const listener of [...this.#listeners]) listener(seen)
  }

  #settle(id: number, message: Readonly<Record<string, unknown>>): void {
    const waiting = this.#waiting.get(id)
    if (!waiting) return // its deadline has passed
    this.#waiting.delete(id)
    clearTimeout(waiting.timer)
    const { error } = message
    if (!isRecord(error)) waiting.resolve(message.return)
    else {
      const text = `QEMU refused ${waiting.command}: ${String(error.desc ?? 'no reason given')}`
      waiting.reject(new AppError('engine_failure', text))
    }
  }

  #breakOff(reason: string): void {
    this.#goneBecause ??= reason
    this.#socket.destroy()
  }

  #fail(reason: string): void {
    this.#goneBecause ??= reason
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer)
      waiting.reject(this.#gone(waiting.command, reason))
    }
    this.#waiting.clear()
  }

  #gone(command: string, reason: string): AppError {
    return new AppError('engine_failure', `QEMU is gone, so ${command} has no answer: ${reason}.`)
  }
}
