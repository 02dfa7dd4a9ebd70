import type { Timing } from './types.js'

/** Times the steps of an operation, each from the end of the one before. */
export class StepTimer {
  readonly #start = performance.now()
  readonly #steps: Timing[] = []
  #last = this.#start

  /** Ends a step, which began with the end of the one before. */
  mark(step: string): void {
    const now = performance.now()
    this.#steps.push({ step, ms: round(now - this.#last) })
    this.#last = now
  }

  /** All steps so far and, last, their `total`. */
  steps(): readonly Timing[] {
    return [...this.#steps, { step: 'total', ms: this.totalMs() }]
  }

  totalMs(): number {
    return round(performance.now() - this.#start)
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100
}
