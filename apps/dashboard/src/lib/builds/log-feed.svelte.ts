import type { BuildLine, Wrenn } from '@wrenn/sdk'
import { type Failure, failureOf } from '../failure.js'

/** Lines come by the thousand; the page is drawn for all that came meanwhile. */
const SHOW_EVERY_MS = 100
const AGAIN_AFTER_MS = 3_000

/** What a build says, as it says it. */
export class LogFeed {
  lines = $state.raw<readonly BuildLine[]>([])
  /** The build has ended, and this is all that it has said. */
  isWhole = $state(false)
  failure = $state.raw<Failure>()
  readonly #wrenn: Pick<Wrenn, 'templates'>
  readonly #id: string
  #waiting: BuildLine[] = []

  constructor(wrenn: Pick<Wrenn, 'templates'>, id: string) {
    this.#wrenn = wrenn
    this.#id = id
  }

  /** Follows until the log is whole or the signal aborts, from the line after the last that came; a connection that breaks is made again. */
  async follow(signal: AbortSignal): Promise<void> {
    while (!this.isWhole && !signal.aborted) {
      const timer = setInterval(() => this.#show(), SHOW_EVERY_MS)
      try {
        const from = this.lines.length
        for await (const line of this.#wrenn.templates.followBuild(this.#id, { from, signal })) this.#waiting.push(line)
        this.#show()
        this.isWhole = true
        this.failure = undefined
      } catch (error) {
        this.#show()
        if (signal.aborted) return
        this.failure = failureOf(error)
        if (this.failure.code === 'build_not_found') return
        await pause(AGAIN_AFTER_MS, signal)
      } finally {
        clearInterval(timer)
      }
    }
  }

  #show(): void {
    if (this.#waiting.length === 0) return
    this.lines = [...this.lines, ...this.#waiting]
    this.#waiting = []
    this.failure = undefined
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true },
    )
  })
}
