import { isErrno } from '@wrenn/base'

const CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
/** As if SIGPIPE had ended us. */
const BROKEN_PIPE = 141
type Interrupting = keyof typeof CODES

/**
 * Turns the first ^C (or SIGTERM, SIGHUP) into an abort, so that clean-up runs. A second ^C ends the process at once: a person
 * insists. Programs that ask twice, such as two `wrenn down`, do not mean that.
 */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController()
  #exitCode: number | undefined
  readonly #onSignal = (name: NodeJS.Signals): void => {
    const code = CODES[name as Interrupting] // only these are listened to
    if (this.#exitCode !== undefined) {
      if (name === 'SIGINT') process.exit(code)
      return
    }
    this.#exitCode = code
    this.#controller.abort(new Error(`ended by ${name}`))
  }

  /** The reader of our output is gone: nobody wants the rest. */
  readonly #onPipe = (error: Error): void => {
    if (!isErrno(error, 'EPIPE') || this.#exitCode !== undefined) return
    this.#exitCode = BROKEN_PIPE
    this.#controller.abort(error)
  }

  constructor() {
    for (const name of Object.keys(CODES)) process.on(name, this.#onSignal)
    process.stdout.on('error', this.#onPipe)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** What to exit with, once interrupted. */
  get exitCode(): number | undefined {
    return this.#exitCode
  }

  [Symbol.dispose](): void {
    for (const name of Object.keys(CODES)) process.off(name, this.#onSignal)
    process.stdout.off('error', this.#onPipe)
  }
}
