import { setTimeout as delay } from 'node:timers/promises'

const SECOND_MS = 1000

/** Spreads bytes over time: who takes some waits until all that were taken before have had theirs. */
export class Pace {
  readonly #bytesPerSec: number | undefined
  #freeAtMs = 0

  /** @param bytesPerSec no limit when it is `undefined` */
  constructor(bytesPerSec: number | undefined) {
    this.#bytesPerSec = bytesPerSec
  }

  async take(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSec === undefined) return
    const now = performance.now() // a step of the clock is no time
    const waitMs = Math.max(0, this.#freeAtMs - now)
    this.#freeAtMs = now + waitMs + (bytes / this.#bytesPerSec) * SECOND_MS
    if (waitMs > 0) await delay(waitMs, undefined, { signal })
  }
}
