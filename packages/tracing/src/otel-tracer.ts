import { AsyncLocalStorage } from 'node:async_hooks'
import {
  type Tracer as ApiTracer,
  type Context,
  defaultTextMapGetter,
  defaultTextMapSetter,
  type HrTime,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import type { Span, SpanFields, SpanOptions, Tracer } from '@wrenn/base'

const kinds = { internal: SpanKind.INTERNAL, server: SpanKind.SERVER, client: SpanKind.CLIENT } as const

/** Spans of OpenTelemetry. Which one is active is kept here, so that several tracers of one process know nothing of each other. */
export class OtelTracer implements Tracer {
  readonly isOn = true
  readonly #tracer: ApiTracer
  readonly #active = new AsyncLocalStorage<Context | undefined>()
  readonly #contexts = new WeakMap<Span, Context>()
  readonly #propagator = new W3CTraceContextPropagator()

  constructor(tracer: ApiTracer) {
    this.#tracer = tracer
  }

  isActive(): boolean {
    return this.#active.getStore() !== undefined
  }

  begin(name: string, { kind = 'internal', fields = {}, from }: SpanOptions = {}): Span {
    const parent =
      from === undefined
        ? (this.#active.getStore() ?? ROOT_CONTEXT)
        : this.#propagator.extract(ROOT_CONTEXT, from, defaultTextMapGetter)
    const inner = this.#tracer.startSpan(name, { kind: kinds[kind], attributes: { ...fields } }, parent)
    let failed = false
    const span: Span = {
      traceId: inner.spanContext().traceId,
      set: (more) => void inner.setAttributes({ ...more }),
      fail: (code) => {
        if (!failed) inner.setAttribute('error.type', code).setStatus({ code: SpanStatusCode.ERROR, message: code })
        failed = true
      },
      end: () => inner.end(),
    }
    this.#contexts.set(span, trace.setSpan(parent, inner))
    return span
  }

  within<T>(span: Span, work: () => T): T {
    return this.#active.run(this.#contexts.get(span), work)
  }

  apart<T>(work: () => T): T {
    return this.#active.run(undefined, work)
  }

  record(name: string, fromMs: number, untilMs: number, fields: SpanFields = {}): void {
    // The wall clock as it is now: `performance.timeOrigin` knows nothing of a clock that was set since.
    const shiftMs = Date.now() - performance.now()
    const parent = this.#active.getStore() ?? ROOT_CONTEXT
    const startTime = hrTime(fromMs + shiftMs)
    this.#tracer.startSpan(name, { attributes: { ...fields }, startTime }, parent).end(hrTime(untilMs + shiftMs))
  }

  headers(): Readonly<Record<string, string>> {
    const context = this.#active.getStore()
    const headers: Record<string, string> = {}
    if (context !== undefined) this.#propagator.inject(context, headers, defaultTextMapSetter)
    return headers
  }
}

/** Seconds and nanoseconds. */
function hrTime(ms: number): HrTime {
  const seconds = Math.floor(ms / 1000)
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)]
}
