import { type ChildProcess, spawn } from 'node:child_process'
import { hasExited, type StopStep, stopChild } from '@wrenn/base'
import type { LogFile } from './log-file.js'

const FIRST_BACKOFF_MS = 250
/** EX_CONFIG of sysexits.h. */
const EXIT_CONFIG = 78
/** A child that ran this long was well: its next death starts the back-off anew. */
const HEALTHY_AFTER_MS = 60_000

export interface ServiceOptions {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: LogFile
  readonly maxRestartDelayMs: number
  /** Asked for when it is to be stopped. */
  readonly ladder: () => readonly StopStep[]
  /** Called after each start and each end. */
  readonly onChange: () => void
  /** Called when the child died without being asked to. */
  readonly onDeath: (death: ServiceDeath) => void
}

export interface ServiceDeath {
  readonly name: string
  readonly how: string
  readonly restartInMs: number
  /** It said that its configuration cannot work: it is not started again. */
  readonly isFinal: boolean
  readonly lastLines: readonly string[]
  readonly logPath: string
}

/** One child that is kept alive: started again, later each time, whenever it dies, until it is stopped. */
export class Service {
  readonly name: string
  readonly #options: ServiceOptions
  #child: ChildProcess | undefined
  #timer: NodeJS.Timeout | undefined
  #backoffMs = FIRST_BACKOFF_MS
  #stopping = false

  constructor(options: ServiceOptions) {
    this.name = options.name
    this.#options = options
  }

  get pid(): number | undefined {
    return this.#child && !hasExited(this.#child) ? this.#child.pid : undefined
  }

  start(): void {
    this.#stopping = false
    const startedAt = performance.now()
    this.#options.log.forgetLines()
    // Own session: ^C at the terminal reaches only the supervisor, which stops its children in order.
    const child = spawn(this.#options.command, [...this.#options.args], {
      env: this.#options.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#child = child
    child.stdout?.on('data', (chunk: Buffer) => this.#options.log.write(chunk))
    child.stderr?.on('data', (chunk: Buffer) => this.#options.log.write(chunk))
    child.once('error', (error) => this.#ended(child, error.message, startedAt, false))
    child.once('exit', (code, signal) => this.#ended(child, signal ?? `code ${code}`, startedAt, code === EXIT_CONFIG))
    this.#options.onChange()
  }

  #ended(child: ChildProcess, how: string, startedAt: number, isFinal: boolean): void {
    if (this.#child !== child) return
    this.#child = undefined
    this.#options.onChange()
    if (this.#stopping) return
    if (performance.now() - startedAt > HEALTHY_AFTER_MS) this.#backoffMs = FIRST_BACKOFF_MS
    const restartInMs = Math.min(this.#backoffMs, this.#options.maxRestartDelayMs)
    this.#backoffMs = restartInMs * 2
    if (!isFinal) this.#timer = setTimeout(() => this.start(), restartInMs)
    const { name, log } = this.#options
    this.#options.onDeath({ name, how, restartInMs, isFinal, lastLines: log.lastLines, logPath: log.path })
  }

  async stop(): Promise<void> {
    this.#stopping = true
    clearTimeout(this.#timer)
    const child = this.#child
    if (!child) return
    await stopChild(child, this.#options.ladder())
  }
}
