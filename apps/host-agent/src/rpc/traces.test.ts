import { createServer } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { capsuleIds, inSpan, silentLogger } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import { OtlpReceiver, type ReceivedSpan } from '@wrenn/testkit'
import { clientSpans, readTracing, startTracing, type Tracing } from '@wrenn/tracing'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { serviceOf } from '../testing/service-of.js'
import { input, shape, TestMachine } from '../testing/test-machine.js'
import { startServer } from './server.js'

const HOST = 'wrenn.host.v1.HostService'

describe('spans of the host agent', () => {
  let undo: AsyncDisposable[]
  let receiver: OtlpReceiver
  let machine: TestMachine
  let asking: Tracing
  let host: Awaited<ReturnType<typeof serve>>

  /** The real service behind its real socket, with a client that traces as the control plane does. */
  async function serve(answering: Tracing) {
    machine.tracer = answering.tracer
    const { manager, hotPool } = await machine.start()
    const socketPath = join(machine.dir, 'run/host.sock')
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
    const { tracer } = answering
    undo.push(await startServer(serviceOf(machine, manager), createServer(), { socketPath, ...owner, tracer }))
    const sessionManager = new Http2SessionManager('http://host', {}, { createConnection: () => connect(socketPath) })
    undo.push({ [Symbol.asyncDispose]: async () => sessionManager.abort() })
    const interceptors = [clientSpans({ tracer: asking.tracer, tells: true })]
    const transport = createConnectTransport({ httpVersion: '2', baseUrl: 'http://host', sessionManager, interceptors })
    return { client: createClient(HostService, transport), manager, hotPool }
  }

  /** What the control plane would do for a request. */
  const requested = <T>(work: () => Promise<T>): Promise<T> => inSpan(asking.tracer, 'request', {}, work)
  const request = () => receiver.span(({ name }) => name === 'request')
  const served = (method: string): Promise<ReceivedSpan> =>
    receiver.span(({ service, name }) => service === 'host' && name === `${HOST}/${method}`, method)
  const isBelow = (above: ReceivedSpan, span: ReceivedSpan): boolean => {
    const parent = receiver.spans.find(({ spanId }) => spanId === span.parentId)
    return parent !== undefined && (parent.spanId === above.spanId || isBelow(above, parent))
  }
  /** One that nobody has asked the service for. */
  const made = async (): Promise<string> => (await host.manager.create(input())).capsuleId

  beforeEach(async () => {
    receiver = await OtlpReceiver.start()
    machine = await TestMachine.create()
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '20' }
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value)
    const start = (serviceName: string) =>
      startTracing(readTracing(env), { serviceName, version: '1', logger: silentLogger })
    asking = await start('control-plane')
    const answering = await start('host')
    undo = [receiver, machine, asking, answering]
    host = await serve(answering)
  })
  afterEach(async () => {
    await host.hotPool.close()
    await host.manager.destroyAll()
    for (const each of undo.reverse()) await each[Symbol.asyncDispose]()
    vi.unstubAllEnvs()
  })

  it('are the steps of a create and the calls to its guest, below the call of the control plane', async () => {
    const capsuleId = capsuleIds.create()
    const wish = { ...shape, memoryMib: 128, capsuleId, teamId: 'team-1', hostname: 'box', generation: 1n, egress: {} }
    await requested(() => host.client.createCapsule(wish))
    const call = await served('CreateCapsule')
    const asked = await receiver.span(({ spanId }) => spanId === call.parentId)
    expect(asked).toMatchObject({ service: 'control-plane', kind: 'client', parentId: (await request()).spanId })
    expect(call).toMatchObject({ kind: 'server', failed: false, fields: { 'wrenn.capsule_id': capsuleId } })
    const { timings } = host.manager.get(capsuleId) ?? {}
    const steps = (timings ?? []).filter(({ step }) => step !== 'total').map(({ step }) => `step ${step}`)
    expect(steps.length).toBeGreaterThan(1)
    await expect.poll(() => receiver.childrenOf(call).map(({ name }) => name)).toEqual(expect.arrayContaining(steps))
    for (const step of receiver.childrenOf(call).filter(({ name }) => name.startsWith('step '))) {
      expect(step.startNs).toBeGreaterThanOrEqual(call.startNs - 1_000_000_000n) // of two clocks that are read apart
      expect(step.endNs).toBeLessThanOrEqual(call.endNs + 1_000_000_000n)
    }
    for (const name of ['part network', 'part files', 'part engine', 'guest POST /init']) {
      const span = await receiver.span((each) => each.name === name && each.traceId === call.traceId, name)
      expect([name, isBelow(call, span)]).toEqual([name, true])
    }
    expect(await receiver.span(({ name }) => name === 'guest POST /init')).toMatchObject({
      kind: 'client',
      fields: { 'peer.service': 'wrenn-guest-agent' },
    })
  })

  it('are those of pause and resume', async () => {
    const capsuleId = await made()
    await requested(async () => {
      await host.client.pauseCapsule({ capsuleId, reason: 'request' })
      await host.client.resumeCapsule({ capsuleId })
    })
    for (const method of ['PauseCapsule', 'ResumeCapsule']) {
      const call = await served(method)
      await expect.poll(() => receiver.childrenOf(call).some(({ name }) => name.startsWith('step '))).toBe(true)
    }
  })

  it('last as long as a command, with the call to the guest below', async () => {
    const capsuleId = await made()
    const process = { cmd: '/bin/sh', args: ['-c', 'echo S3CR3T'], envs: { A: 'S3CR3T' } }
    await requested(async () => {
      for await (const _ of host.client.startProcess({ capsuleId, start: { process } })) {
        // only its end matters
      }
    })
    const call = await served('StartProcess')
    const guest = await receiver.span(({ name }) => name === 'process.Process/Start')
    expect(guest).toMatchObject({ service: 'host', kind: 'client', parentId: call.spanId, failed: false })
    for (const { body } of receiver.requests) expect(body.includes('S3CR3T')).toBe(false)
  })

  it('say why a call failed', async () => {
    const capsuleId = capsuleIds.create()
    await expect(requested(() => host.client.pauseCapsule({ capsuleId, reason: 'request' }))).rejects.toThrow()
    expect(await served('PauseCapsule')).toMatchObject({ failed: true, message: 'capsule_not_found' })
  })

  it('are made of nothing that nobody traces, and of nothing that goes on afterwards', async () => {
    const capsuleId = await made()
    await host.client.getCapsule({ capsuleId })
    await requested(() => host.client.getCapsule({ capsuleId }))
    await expect.poll(() => receiver.spans.length).toBe(3)
    await served('GetCapsule')
    expect(new Set(receiver.spans.map(({ traceId }) => traceId)).size).toBe(1)
  })
})
