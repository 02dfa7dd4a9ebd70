import { errorText, type Logger } from '@wrenn/base'
import type { StartedChild } from '../process/started-child.js'
import { type LineOptions, StarterLine } from './line.js'
import { memoryScript, pipeScript } from './own-scripts.js'
import type { NotStarted, ProcessScript, StarterState } from './process-script.js'

/** Longer scripts leave memory behind that is given back. */
const LARGE_SCRIPT_BYTES = 64 * 1024
/** One that keeps ending is not started again at each command. */
const RESTART_AFTER_MS = 5_000

/**
 * The resident program that makes processes (`processStarter` of @wrenn/base): it waits, and forking it costs a tenth of what
 * copying this process does. When it has ended, its processes live on, but how they end is not to be known, and the next command
 * starts another one.
 */
export class ProcessStarter {
  readonly #options: LineOptions & { readonly log: Logger }
  #line: StarterLine | undefined
  #openedAtMs = Number.NEGATIVE_INFINITY
  #isClosed = false

  constructor(options: LineOptions & { readonly log: Logger }) {
    this.#options = options
  }

  /** Starts it where it does not run, but not again soon after its last start. Where it cannot run, that is logged. */
  async prepare(): Promise<void> {
    const nowMs = performance.now()
    if (this.#line !== undefined || this.#isClosed || nowMs - this.#openedAtMs < RESTART_AFTER_MS) return
    this.#openedAtMs = nowMs
    try {
      const line = await StarterLine.open(this.#options, (reason) => this.#lost(line, reason))
      this.#line = line
    } catch (error) {
      this.#options.log.warn({ reason: errorText(error) }, 'starter.unusable')
    }
  }

  /** What scripts need to know of it; `undefined` while it does not run. */
  get state(): StarterState | undefined {
    return this.#line?.state
  }

  /** Runs a script that makes a process; `undefined` when the starter is gone, which is logged. */
  start(script: ProcessScript): StartedChild | NotStarted | undefined {
    const line = this.#line
    const answer = this.#exchange(script)
    if (line === undefined || answer === undefined) return undefined
    if (script.bytes.length > LARGE_SCRIPT_BYTES) this.#exchange(memoryScript())
    const made = script.read(answer)
    return typeof made === 'number' ? { pid: made, ended: line.endOf(made) } : made
  }

  /** Makes pipes in its directory; false when it could not. */
  makePipes(names: readonly string[]): boolean {
    const script = pipeScript(names)
    const answer = this.#exchange(script)
    return answer !== undefined && script.read(answer)
  }

  close(): void {
    this.#isClosed = true
    this.#line?.close()
    this.#line = undefined
  }

  #exchange({ bytes, answerBytes }: Pick<ProcessScript, 'bytes' | 'answerBytes'>): Buffer | undefined {
    const line = this.#line
    if (line === undefined) return undefined
    try {
      return line.exchange(bytes, answerBytes)
    } catch (error) {
      this.#lost(line, errorText(error))
      return undefined
    }
  }

  #lost(line: StarterLine, reason: string): void {
    if (this.#line !== line) return
    this.#line = undefined
    this.#options.log.warn({ reason, living: line.living }, 'starter.ended')
  }
}
