import { backoffMs, delay } from './wait.js'

/** How often something that keeps failing is tried again, and for how long. */
export class Patience {
  readonly #limitMs: number
  #since: number | undefined
  #tries = 0

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  /** Whether it has failed for the whole limit; false before the first failure. */
  get isOver(): boolean {
    return this.#since !== undefined && performance.now() - this.#since >= this.#limitMs
  }

  /** Resolves when it is time for the next try: the first one at once, further ones later and later. */
  async nextTry(signal: AbortSignal): Promise<void> {
    this.#since ??= performance.now()
    this.#tries += 1
    if (this.#tries > 1) await delay(backoffMs(this.#tries - 2), signal)
  }

  /** After a success: what fails next is new trouble. */
  reset(): void {
    this.#since = undefined
    this.#tries = 0
  }
}
