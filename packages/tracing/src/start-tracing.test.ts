import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { inSpan, type Logger, noTracer, silentLogger } from '@wrenn/base'
import { OtlpReceiver } from '@wrenn/testkit'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { readTracing } from './config.js'
import { startTracing } from './start-tracing.js'

const loads = vi.hoisted((): string[] => [])
vi.mock('./sdk.js', async (original) => {
  loads.push('sdk')
  return await original()
})

interface Line {
  readonly event: string
  readonly [field: string]: unknown
}

function keepingLogger(): { readonly logger: Logger; readonly lines: Line[] } {
  const lines: Line[] = []
  const keep = (fields: object, event: string): void => void lines.push({ ...fields, event })
  const logger: Logger = { debug: keep, info: keep, warn: keep, error: keep, child: () => logger }
  return { logger, lines }
}

/** Tracing as a service starts it whose environment has these. A span is sent at once. */
async function start(env: Readonly<Record<string, string>>, logger: Logger = silentLogger) {
  const all = { OTEL_BSP_SCHEDULE_DELAY: '1', ...env }
  for (const [name, value] of Object.entries(all)) vi.stubEnv(name, value)
  return await startTracing(readTracing(all), { serviceName: 'wrenn-some', version: '1.2.3', logger })
}

describe('tracing', () => {
  afterEach(() => vi.unstubAllEnvs())

  // The first of all: a module that is loaded stays.
  it('loads nothing of OpenTelemetry where nobody asks for traces', async () => {
    const { logger, lines } = keepingLogger()
    const off = await start({}, logger)
    expect(off.tracer).toBe(noTracer)
    expect(await inSpan(off.tracer, 'work', {}, async ({ traceId }) => traceId)).toBeUndefined()
    await off[Symbol.asyncDispose]()
    const refused = await start({ OTEL_TRACES_EXPORTER: 'zipkin' }, logger)
    expect(refused.tracer).toBe(noTracer)
    expect(loads).toEqual([])
    expect(lines).toEqual([{ event: 'traces.off', reason: expect.stringContaining('zipkin') }])

    await using receiver = await OtlpReceiver.start()
    await using _ = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url })
    expect(loads).toEqual(['sdk'])
  })

  it.each([
    ['http/protobuf', 'application/x-protobuf'],
    ['http/json', 'application/json'],
  ])('sends spans as %s, with the headers and resource that the environment names', async (protocol, contentType) => {
    await using receiver = await OtlpReceiver.start()
    await using tracing = await start({
      OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
      OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20secret',
      OTEL_EXPORTER_OTLP_COMPRESSION: 'gzip',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
    })
    const { tracer } = tracing
    await inSpan(tracer, 'outer', { kind: 'server', fields: { a: 'x', b: 2, c: undefined } }, async () => {
      await inSpan(tracer, 'inner', { kind: 'client' }, async (span) => span.set({ d: true }))
    })
    const outer = await receiver.span(({ name }) => name === 'outer')
    const inner = await receiver.span(({ name }) => name === 'inner')
    expect(outer).toMatchObject({ kind: 'server', parentId: '', fields: { a: 'x', b: 2 }, failed: false })
    expect(inner).toMatchObject({ kind: 'client', parentId: outer.spanId, traceId: outer.traceId, fields: { d: true } })
    expect(inner.startNs).toBeGreaterThanOrEqual(outer.startNs)
    expect(Object.keys(outer.fields).sort()).toEqual(['a', 'b'])
    expect(outer.resource).toMatchObject({
      'service.name': 'wrenn-some',
      'service.version': '1.2.3',
      'deployment.environment.name': 'test',
    })
    expect(receiver.requests[0]?.headers).toMatchObject({
      authorization: 'Bearer secret',
      'content-type': contentType,
      'content-encoding': 'gzip',
    })
  })

  it('is called as OTEL_SERVICE_NAME says, and samples as OTEL_TRACES_SAMPLER says', async () => {
    await using receiver = await OtlpReceiver.start()
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_SERVICE_NAME: 'mine' }
    {
      await using sampled = await start({ ...env, OTEL_TRACES_SAMPLER: 'parentbased_always_off' })
      await inSpan(sampled.tracer, 'unasked', {}, async () => {})
      const wanted = { traceparent: `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01` }
      await inSpan(sampled.tracer, 'asked', { from: wanted }, async () => {})
    }
    expect(receiver.spans).toMatchObject([{ name: 'asked', service: 'mine', traceId: 'ab'.repeat(16) }])
  })

  it('says which setting OpenTelemetry could not understand', async () => {
    await using receiver = await OtlpReceiver.start()
    const { logger, lines } = keepingLogger()
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_TRACES_SAMPLER: 'sometimes' }
    await using _ = await start(env, logger)
    expect(lines).toContainEqual({ event: 'traces.setting_ignored', reason: expect.stringContaining('sometimes') })
  })

  it('tells of an outage of the collector once, and once of its end', async () => {
    await using receiver = await OtlpReceiver.start()
    const { logger, lines } = keepingLogger()
    await using tracing = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url }, logger)
    receiver.status = 400 // one that is not asked again
    for (let count = 1; count <= 3; count++) {
      await inSpan(tracing.tracer, 'lost', {}, async () => {})
      await expect.poll(() => receiver.requests.length).toBe(count)
    }
    receiver.status = 200
    await inSpan(tracing.tracer, 'kept', {}, async () => {})
    await receiver.span(({ name }) => name === 'kept')
    await expect
      .poll(() => lines.map(({ event }) => event))
      .toEqual(['traces.started', 'traces.not_exported', 'traces.exported_again'])
    expect(lines[2]).toMatchObject({ lostSpans: 3 })
  })

  it('sends what is left when it is disposed', async () => {
    await using receiver = await OtlpReceiver.start()
    const tracing = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '600000' })
    await inSpan(tracing.tracer, 'last', {}, async () => {})
    await tracing[Symbol.asyncDispose]()
    expect(receiver.spans.map(({ name }) => name)).toEqual(['last'])
  })

  it.each([
    ['takes requests and answers none', false],
    ['refuses connections', true],
  ])('lets a process end that has spans for a collector that %s', async (_, isClosed) => {
    const server = createServer(() => {})
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo // it listens over TCP
    if (isClosed) await new Promise((resolve) => server.close(resolve))
    const tracing = await start({
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
      // Longer than the test may take: what is waited for that long fails it.
      ...{ OTEL_EXPORTER_OTLP_TIMEOUT: '600000', OTEL_BSP_EXPORT_TIMEOUT: '600000' },
    })
    await inSpan(tracing.tracer, 'lost', {}, async () => {})
    await tracing[Symbol.asyncDispose]()
    server.closeAllConnections()
    if (!isClosed) await new Promise((resolve) => server.close(resolve))
  })
})
