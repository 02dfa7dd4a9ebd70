import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { AppError, inSpan } from '@wrenn/base'
import { beforeEach, describe, expect, it } from 'vitest'
import { OtelTracer } from './otel-tracer.js'

const TRACE = 'ab'.repeat(16)
const PARENT = 'cd'.repeat(8)

describe('a tracer', () => {
  let exporter: InMemorySpanExporter
  let tracer: OtelTracer

  const spans = () =>
    exporter.getFinishedSpans().map((span) => ({
      ...{ name: span.name, attributes: span.attributes, message: span.status.message },
      ...{ parentId: span.parentSpanContext?.spanId, ...span.spanContext() },
    }))

  beforeEach(() => {
    exporter = new InMemorySpanExporter()
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
    tracer = new OtelTracer(provider.getTracer('test'))
  })

  it('goes on with the trace of a caller, and tells others of it', async () => {
    const from = { traceparent: `00-${TRACE}-${PARENT}-01`, tracestate: 'vendor=1' }
    const headers = await inSpan(tracer, 'request', { from }, async () => tracer.headers())
    const [request] = spans()
    expect(request).toMatchObject({ traceId: TRACE, parentId: PARENT })
    expect(headers).toEqual({ traceparent: `00-${TRACE}-${request?.spanId}-01`, tracestate: 'vendor=1' })
    expect(tracer.headers()).toEqual({})
  })

  it.each([
    ['nothing', {}],
    ['what is no trace', { traceparent: 'secret' }],
    ['a trace of zeros', { traceparent: `00-${'0'.repeat(32)}-${PARENT}-01` }],
  ])('begins a trace of its own for a caller who names %s', async (_, from) => {
    await inSpan(tracer, 'outer', {}, () => inSpan(tracer, 'request', { from }, async () => {}))
    const [request, outer] = spans()
    expect(request?.parentId).toBeUndefined()
    expect(request?.traceId).not.toBe(outer?.traceId)
    expect(JSON.stringify(request)).not.toContain('secret')
  })

  it('makes no spans for who asks for none, and passes that on', async () => {
    const from = { traceparent: `00-${TRACE}-${PARENT}-00` }
    const headers = await inSpan(tracer, 'request', { from }, async () => tracer.headers())
    expect(spans()).toEqual([])
    expect(headers.traceparent).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`))
  })

  it('has a span active in what is begun in it, however late, and in nothing else', async () => {
    let late: Promise<void> | undefined
    await inSpan(tracer, 'outer', {}, async () => {
      late = new Promise((resolve) => setImmediate(resolve)).then(() => inSpan(tracer, 'late', {}, async () => {}))
      await tracer.apart(async () => {
        expect(tracer.isActive()).toBe(false)
        await inSpan(tracer, 'apart', {}, async () => {})
      })
      expect(tracer.isActive()).toBe(true)
    })
    expect(tracer.isActive()).toBe(false)
    await late
    const [apart, outer, inner] = spans()
    expect(inner).toMatchObject({ name: 'late', parentId: outer?.spanId })
    expect(apart).toMatchObject({ name: 'apart', parentId: undefined })
  })

  it('tells of a failure by its code alone', async () => {
    const failing = inSpan(tracer, 'work', {}, async () => {
      throw new AppError('disk_full', 'secret')
    })
    const told = tracer.begin('told')
    told.fail('guest_died')
    told.fail('502')
    told.end()
    await expect(failing).rejects.toThrow('secret')
    const [first, second] = spans()
    expect(first).toMatchObject({ message: 'guest_died', attributes: { 'error.type': 'guest_died' } })
    expect(second).toMatchObject({ message: 'disk_full', attributes: { 'error.type': 'disk_full' } })
    expect(JSON.stringify(exporter.getFinishedSpans().map(({ events }) => events))).toBe('[[],[]]')
  })

  it('records what is over already, at the time when it was', async () => {
    const before = Date.now()
    const now = performance.now()
    await inSpan(tracer, 'outer', {}, async () => tracer.record('step', now - 2_000, now - 500, { a: 1 }))
    const [step, outer] = exporter.getFinishedSpans()
    expect(step).toMatchObject({ name: 'step', attributes: { a: 1 } })
    expect(step?.parentSpanContext?.spanId).toBe(outer?.spanContext().spanId)
    const ms = ([seconds, nanos] = [0, 0]): number => seconds * 1000 + nanos / 1e6
    expect(ms(step?.duration)).toBeCloseTo(1_500, 2)
    // Of the clock's and the counter's readings, which are not taken at one moment.
    expect(Math.abs(ms(step?.startTime) - (before - 2_000))).toBeLessThan(1_000)
  })
})
