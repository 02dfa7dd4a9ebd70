import type { ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { endHolders, errorText, hasExited, type RunAs, type StopStep, stopChild } from '@wrenn/base'
import type { LogFile } from './log-file.js'
import { spawnProgram } from './program-for.js'

const FIRST_BACKOFF_MS = 250
/** EX_CONFIG of sysexits.h. */
const EXIT_CONFIG = 78
/** A child that ran this long was well: its next death starts the back-off anew. */
const HEALTHY_AFTER_MS = 60_000

/** How one child is started, told ready and stopped. */
export interface ServiceOptions {
  readonly name: string
  readonly program: string
  readonly args: readonly string[]
  /** @default as ourselves */
  readonly user?: RunAs
  /** Start the program from a descriptor: its user may not enter the folder that it lies in. @default false */
  readonly isOpened?: boolean
  /** Open in it and in the tools it starts. */
  readonly lifeline: string
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

/** A child ended although nobody had asked it to. */
export interface ServiceDeath {
  readonly name: string
  readonly how: string
  readonly restartInMs: number
  /** It said that its configuration cannot work: it is not started again. */
  readonly isFinal: boolean
  readonly lastLines: readonly string[]
  readonly logPath: string
}

/**
 * One child that is kept alive: started again, later each time, whenever it dies, until it is stopped. The kernel ends it when
 * we are killed. What it has started itself ends with it.
 */
export class Service {
  readonly name: string
  readonly #options: ServiceOptions
  #child: ChildProcess | undefined
  #timer: NodeJS.Timeout | undefined
  #restarting = Promise.resolve()
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
    const child = this.#spawn()
    this.#child = child
    child.stdout?.on('data', (chunk: Buffer) => this.#options.log.write(chunk))
    child.stderr?.on('data', (chunk: Buffer) => this.#options.log.write(chunk))
    child.once('error', (error) => this.#ended(child, error.message, startedAt, false))
    child.once('exit', (code, signal) => this.#ended(child, signal ?? `code ${code}`, startedAt, code === EXIT_CONFIG))
    this.#options.onChange()
  }

  #spawn(): ChildProcess {
    const { program, args, user, isOpened, env, lifeline } = this.#options
    const descriptor = openSync(lifeline, 'a', 0o600)
    const how = { program, args, user, env, ...(isOpened === undefined ? {} : { isOpened }) }
    try {
      // Own session: ^C at the terminal reaches only the supervisor, which stops its children in order.
      return spawnProgram({ ...how, stdio: ['ignore', 'pipe', 'pipe', descriptor], detached: true })
    } finally {
      closeSync(descriptor)
    }
  }

  /** Its tools, such as an image's build, may have outlived it, and would be in the way of its successor. */
  async #startAgain(): Promise<void> {
    try {
      await endHolders(this.#options.lifeline)
      if (!this.#stopping) this.start()
    } catch (error) {
      this.#failed(errorText(error), false)
    }
  }

  #ended(child: ChildProcess, how: string, startedAt: number, isFinal: boolean): void {
    if (this.#child !== child) return
    this.#child = undefined
    this.#options.onChange()
    if (this.#stopping) return
    if (performance.now() - startedAt > HEALTHY_AFTER_MS) this.#backoffMs = FIRST_BACKOFF_MS
    this.#failed(how, isFinal)
  }

  #failed(how: string, isFinal: boolean): void {
    if (this.#stopping) return
    const restartInMs = Math.min(this.#backoffMs, this.#options.maxRestartDelayMs)
    this.#backoffMs = restartInMs * 2
    const again = (): void => {
      this.#restarting = this.#startAgain()
    }
    if (!isFinal) this.#timer = setTimeout(again, restartInMs)
    const { name, log } = this.#options
    this.#options.onDeath({ name, how, restartInMs, isFinal, lastLines: log.lastLines, logPath: log.path })
  }

  async stop(): Promise<void> {
    this.#stopping = true
    clearTimeout(this.#timer)
    await this.#restarting
    if (this.#child) await stopChild(this.#child, this.#options.ladder())
    await endHolders(this.#options.lifeline)
  }
}
