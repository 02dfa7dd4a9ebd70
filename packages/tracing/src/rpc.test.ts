import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { capsuleIds, inSpan, noTracer } from '@wrenn/base'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import { HostService } from '@wrenn/protocol/host'
import { beforeEach, describe, expect, it } from 'vitest'
import { OtelTracer } from './otel-tracer.js'
import { type CallSpans, clientSpans, serverSpans } from './rpc.js'

const START = 'wrenn.host.v1.HostService/StartProcess'

describe('spans of calls', () => {
  let exporter: InMemorySpanExporter
  let tracer: OtelTracer
  /** What the server does while it answers. */
  let serve: () => void
  /** What the server was told of a trace, call by call. */
  let told: (string | null)[]

  const spans = () =>
    exporter.getFinishedSpans().map((span) => ({
      ...{ name: span.name, kind: span.kind, attributes: span.attributes, failure: span.status.message },
      ...{ parentId: span.parentSpanContext?.spanId, ...span.spanContext() },
    }))
  const named = (name: string) => spans().filter((span) => span.name === name)

  const clientOf = (options: Partial<CallSpans> = {}, server = serverSpans(tracer)) =>
    createClient(
      HostService,
      createRouterTransport(
        (router) =>
          router.service(HostService, {
            getHost: (_, { requestHeader }) => {
              told.push(requestHeader.get('traceparent'))
              serve()
              return {}
            },
            destroyCapsule: () => {
              serve()
              return {}
            },
            async *startProcess() {
              for (let step = 1; ; step++) {
                tracer.record(`step ${step}`, 0, 1)
                yield {}
                if (step === 2) serve()
                await new Promise((resolve) => setImmediate(resolve))
              }
            },
          }),
        {
          transport: { interceptors: [clientSpans({ tracer, tells: true, ...options })] },
          router: { interceptors: [server] },
        },
      ),
    )

  beforeEach(() => {
    exporter = new InMemorySpanExporter()
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
    tracer = new OtelTracer(provider.getTracer('test'))
    serve = () => {}
    told = []
  })

  it('are a client and below it a server, with what the server does below that', async () => {
    serve = () => tracer.record('work', 0, 1)
    const capsuleId = capsuleIds.create()
    const client = clientOf({ fields: { 'peer.service': 'host' } })
    await inSpan(tracer, 'request', {}, () => client.destroyCapsule({ capsuleId }))
    const [work, server, asked, request] = spans()
    const name = 'wrenn.host.v1.HostService/DestroyCapsule'
    expect(asked).toMatchObject({ name, kind: 2, parentId: request?.spanId })
    expect(asked?.attributes).toEqual({
      ...{ 'rpc.system': 'connect_rpc', 'rpc.service': 'wrenn.host.v1.HostService', 'rpc.method': 'DestroyCapsule' },
      ...{ 'peer.service': 'host', 'wrenn.capsule_id': capsuleId },
    })
    expect(server).toMatchObject({ name, kind: 1, parentId: asked?.spanId })
    expect(work).toMatchObject({ name: 'work', parentId: server?.spanId, traceId: request?.traceId })
  })

  it('are made for nothing that is not traced', async () => {
    await clientOf().getHost({})
    await inSpan(noTracer, 'request', {}, () => clientOf().getHost({}))
    expect({ told, spans: spans() }).toEqual({ told: [null, null], spans: [] })
  })

  it('tell nobody of the trace who must not know it', async () => {
    await inSpan(tracer, 'request', {}, () => clientOf({ tells: false }).getHost({}))
    expect(told).toEqual([null])
    expect(spans().map(({ name }) => name)).toEqual(['wrenn.host.v1.HostService/GetHost', 'request'])
  })

  it.each([
    [
      'our code',
      () => new ConnectError('secret', Code.NotFound, { [ERROR_CODE_HEADER]: 'capsule_not_found' }),
      'capsule_not_found',
    ],
    [
      'the transport’s, when ours is none that we know',
      () => new ConnectError('x', Code.Unavailable, { [ERROR_CODE_HEADER]: 'secret' }),
      'unavailable',
    ],
    ['a word for a bug', () => new Error('secret'), 'internal'],
  ])('fail with %s', async (_, error, code) => {
    serve = () => {
      throw error()
    }
    await expect(inSpan(tracer, 'request', {}, () => clientOf().getHost({}))).rejects.toThrow()
    expect(named('wrenn.host.v1.HostService/GetHost').map(({ failure }) => failure)).toEqual([code, code])
    expect(JSON.stringify(spans())).not.toContain('secret')
  })

  it('last as long as their stream, whose steps are below them', async () => {
    await inSpan(tracer, 'request', {}, async () => {
      const items = clientOf().startProcess({})[Symbol.asyncIterator]()
      await items.next()
      expect(named(START)).toEqual([])
      serve = () => {
        throw new ConnectError('gone', Code.Unavailable, { [ERROR_CODE_HEADER]: 'guest_died' })
      }
      await items.next()
      await expect(items.next()).rejects.toThrow('gone')
    })
    const [server, client] = named(START)
    expect([server?.failure, client?.failure]).toEqual(['guest_died', 'guest_died'])
    for (const step of ['step 1', 'step 2']) expect(named(step)).toMatchObject([{ parentId: server?.spanId }])
  })

  it.each([
    ['aborts', undefined, { failure: undefined, error: 'canceled' }],
    ['runs out of time', 200, { failure: 'deadline_exceeded', error: 'deadline_exceeded' }],
  ])('end when the client %s', async (_, timeoutMs, { failure, error }) => {
    const leaving = new AbortController()
    await inSpan(tracer, 'request', {}, async () => {
      const options = { signal: leaving.signal, ...(timeoutMs === undefined ? {} : { timeoutMs }) }
      const items = clientOf().startProcess({}, options)[Symbol.asyncIterator]()
      await items.next()
      if (timeoutMs === undefined) leaving.abort()
      await expect.poll(() => named(START).length).toBe(2)
    })
    const client = named(START).find(({ kind }) => kind === 2)
    expect(client).toMatchObject({ failure, attributes: { 'error.type': error } })
  })
})
