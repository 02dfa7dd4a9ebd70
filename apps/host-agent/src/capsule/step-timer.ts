import { noTracer, type SpanFields, type Tracer } from '@wrenn/base'
import type { Timing } from './types.js'

/** Times the steps of an operation, each from the end of the one before. */
export class StepTimer {
  readonly #tracer: Tracer
  readonly #fields: SpanFields
  readonly #start = performance.now()
  readonly #steps: Timing[] = []
  #last = this.#start

  /** Each step is a span too, where the operation is traced. */
  constructor(tracer: Tracer = noTracer, fields: SpanFields = {}) {
    this.#tracer = tracer
    this.#fields = fields
  }

  /** Ends a step, which began with the end of the one before. */
  mark(step: string): void {
    const now = performance.now()
    this.#steps.push({ step, ms: round(now - this.#last) })
    if (this.#tracer.isActive())
      this.#tracer.record(`step ${step}`, this.#last, now, { ...this.#fields, 'wrenn.step': step })
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
