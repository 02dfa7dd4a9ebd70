import { randomBytes } from 'node:crypto'
import type { Logger } from '@wrenn/base'
import type { Capsule, TemplateBuild } from '@wrenn/protocol'
import { isReplicated, OtlpReceiver, type ReceivedSpan } from '@wrenn/testkit'
import { readTracing, startTracing, type Tracing } from '@wrenn/tracing'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

const HOST = 'wrenn.host.v1.HostService'
const lines: Record<string, unknown>[] = []
let receiver: OtlpReceiver
let tracings: readonly [Tracing, Tracing]
let platform: Platform

beforeAll(async () => {
  receiver = await OtlpReceiver.start()
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '20' }
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value)
  const keep = (fields: object, event: string): void => void lines.push({ ...fields, event })
  const logger: Logger = { debug: keep, info: keep, warn: keep, error: keep, child: () => logger }
  const start = (serviceName: string) => startTracing(readTracing(env), { serviceName, version: '1', logger })
  tracings = [await start('wrenn-control-plane'), await start('wrenn-host-agent')]
  const [{ tracer: controlPlane }, { tracer: host }] = tracings
  platform = await startPlatform({ logger, tracers: { controlPlane, host } })
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
  for (const tracing of tracings) await tracing[Symbol.asyncDispose]()
  await receiver[Symbol.asyncDispose]()
  vi.unstubAllEnvs()
}, 30_000)

/** What a client says who makes a trace. */
function caller() {
  const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')]
  return { traceId, spanId, headers: { traceparent: `00-${traceId}-${spanId}-01` } }
}

/** The span of a trace with that name, once it has come. */
const spanOf = (traceId: string, name: string): Promise<ReceivedSpan> =>
  receiver.span((span) => span.traceId === traceId && span.name === name, `${name} of ${traceId}`)
/** That of the host, which has its name from the call as that of the client has. */
const hostSpanOf = (traceId: string, method: string): Promise<ReceivedSpan> =>
  receiver.span(
    (span) => span.traceId === traceId && span.service === 'wrenn-host-agent' && span.name === `${HOST}/${method}`,
  )

describe('traces', () => {
  it('go from the caller through request, operation and call to the host', async () => {
    const { traceId, spanId, headers } = caller()
    const answer = await platform.call('POST', '/v1/capsules', {}, headers)
    const { id } = await json<Capsule>(answer, 201)

    const request = await spanOf(traceId, 'POST /v1/capsules')
    expect(request).toMatchObject({ parentId: spanId, kind: 'server', service: 'wrenn-control-plane', failed: false })
    expect(request.fields).toEqual({
      ...{ 'http.request.method': 'POST', 'http.route': '/v1/capsules', 'http.response.status_code': 201 },
      ...{ 'wrenn.request_id': answer.headers.get('x-request-id'), 'wrenn.team_id': expect.any(String) },
    })
    const operation = await spanOf(traceId, 'operation create')
    expect(operation).toMatchObject({ parentId: request.spanId, kind: 'internal', failed: false })
    expect(operation.fields).toMatchObject({
      ...{ 'wrenn.capsule_id': id, 'wrenn.kind': 'create', 'wrenn.outcome': 'done', 'wrenn.attempt': 1 },
      ...{ 'wrenn.request_id': answer.headers.get('x-request-id'), 'wrenn.team_id': request.fields['wrenn.team_id'] },
    })
    const served = await hostSpanOf(traceId, 'CreateCapsule')
    const asked = await receiver.span((span) => span.spanId === served.parentId)
    expect(asked).toMatchObject({ kind: 'client', parentId: operation.spanId, service: 'wrenn-control-plane', traceId })
    expect(served).toMatchObject({ kind: 'server', failed: false, fields: { 'wrenn.capsule_id': id } })
  })

  it('begin with the request where the caller makes none, and the log names them', async () => {
    const answer = await platform.call('GET', '/v1/capsules')
    const requestId = answer.headers.get('x-request-id')
    const request = await receiver.span(({ fields }) => fields['wrenn.request_id'] === requestId)
    expect(request).toMatchObject({ name: 'GET /v1/capsules', parentId: '', kind: 'server' })
    // Only the first of several control planes writes into this log.
    if (isReplicated()) return
    const line = () => lines.find((each) => each.requestId === requestId)
    await expect.poll(line).toMatchObject({ traceId: request.traceId })
  })

  it('have commands and what a WebSocket asks for below the request, to its end', async () => {
    const { id } = await platform.create()
    const { traceId, headers } = caller()
    const body = { cmd: '/bin/sh', args: ['-c', 'exit 3'] }
    await json(await platform.call('POST', `/v1/capsules/${id}/exec`, body, headers), 200)
    const request = await spanOf(traceId, 'POST /v1/capsules/:id/exec')
    expect(request.fields).toMatchObject({ 'wrenn.capsule_id': id, 'http.response.status_code': 200 })
    const started = await hostSpanOf(traceId, 'StartProcess')
    expect(await receiver.span(({ spanId }) => spanId === started.parentId)).toMatchObject({ parentId: request.spanId })

    const socket = platform.open(`/v1/capsules/${id}/exec/stream`)
    await socket.send({ type: 'start', cmd: '/bin/true' })
    await socket.until('exit')
    const opened = await receiver.span(({ name }) => name === 'GET /v1/capsules/:id/exec/stream')
    expect(opened).toMatchObject({
      failed: false,
      fields: { 'http.response.status_code': 101, 'wrenn.capsule_id': id },
    })
    const ofSocket = await hostSpanOf(opened.traceId, 'StartProcess')
    expect(await receiver.span(({ spanId }) => spanId === ofSocket.parentId)).toMatchObject({ parentId: opened.spanId })
  })

  it('tell failures by their code: those of callers are none of ours', async () => {
    const missing = caller()
    const path = `/v1/capsules/cl-${'1'.repeat(25)}`
    expect((await platform.call('GET', path, undefined, missing.headers)).status).toBe(404)
    expect(await spanOf(missing.traceId, 'GET /v1/capsules/:id')).toMatchObject({
      failed: false,
      fields: { 'http.response.status_code': 404, 'error.type': 'capsule_not_found' },
    })

    const { id } = await platform.create()
    const away = caller()
    await platform.host.stop()
    const answer = await platform.call('GET', `/v1/capsules/${id}/processes`, undefined, away.headers)
    await platform.host.start()
    expect(answer.status).toBe(503)
    const request = await spanOf(away.traceId, 'GET /v1/capsules/:id/processes')
    expect(request).toMatchObject({ failed: true, message: 'host_unavailable' })
    const asked = await spanOf(away.traceId, `${HOST}/ListProcesses`)
    expect(asked).toMatchObject({ failed: true, parentId: request.spanId, service: 'wrenn-control-plane' })
    await platform.until(id, 'running')
  })

  it('say that a client went away before its answer', async () => {
    const { id } = await platform.create()
    const { traceId, headers } = caller()
    const leaving = new AbortController()
    const left = fetch(`${platform.url}/v1/capsules/${id}/exec`, {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ cmd: '/bin/sleep', args: ['600'] }),
      signal: leaving.signal,
    })
    await expect
      .poll(() => platform.call('GET', `/v1/capsules/${id}/processes`).then((list) => list.text()))
      .toMatch(/sleep/)
    leaving.abort()
    await expect(left).rejects.toThrow()
    const request = await spanOf(traceId, 'POST /v1/capsules/:id/exec')
    expect(request.fields).toMatchObject({ 'wrenn.client_gone': true })
    expect(request.fields).not.toHaveProperty('http.response.status_code')
    expect(await hostSpanOf(traceId, 'StartProcess')).toMatchObject({ failed: false })
  })

  it('are of their own for builds, which name the request that asked', async () => {
    const { traceId, headers } = caller()
    const name = 'traced'
    const begun = await json<TemplateBuild>(await platform.call('POST', '/v1/templates/builds', { name }), 201)
    const plan = { stages: [{ from: 'base', steps: [{ type: 'RUN', args: ['true'] }] }] }
    const started = await platform.call('POST', `/v1/templates/builds/${begun.id}/start`, plan, headers)
    expect([started.status, started.ok ? '' : await started.text()]).toEqual([202, ''])
    const build = await receiver.span((span) => span.name === 'build' && span.fields['wrenn.build_id'] === begun.id)
    expect(build).toMatchObject({ parentId: '', failed: false, fields: { 'wrenn.outcome': 'ready' } })
    expect(build.traceId).not.toBe(traceId)
    await expect.poll(() => receiver.childrenOf(build).length).toBeGreaterThan(0)
  })

  it('hold no secret, no query, no path of a file, no command and no output', async () => {
    const { id } = await platform.create()
    const secret = 'S3CR3T'
    const { traceId, headers } = caller()
    const asked = (method: string, path: string, body?: unknown) =>
      platform.call(method, path, body, {
        ...headers,
        tracestate: 'vendor=1',
        'x-more': secret,
        cookie: `session=${secret}`,
      })
    await asked('GET', `/v1/capsules?token=${secret}`)
    await asked('GET', `/v1/${secret}/nowhere`)
    await asked('GET', `/v1/capsules/${secret}`)
    await asked('PUT', `/v1/capsules/${id}/files?path=/tmp/${secret}`, { text: secret })
    await asked('GET', `/v1/capsules/${id}/files?path=/tmp/none-${secret}`)
    await asked('POST', `/v1/capsules/${id}/exec`, { cmd: '/bin/echo', args: [secret], envs: { SECRET: secret } })
    await asked('POST', `/v1/capsules/${id}/exec`, { cmd: `/bin/${secret}`, cwd: `/${secret}` })
    await asked('POST', '/v1/capsules', { template: secret, envs: { A: secret }, metadata: { a: secret } })
    await json(await asked('DELETE', `/v1/capsules/${id}`), 200).catch(() => undefined)
    await spanOf(traceId, 'DELETE /v1/capsules/:id')
    await expect
      .poll(() => receiver.spans.filter((span) => span.traceId === traceId && span.kind === 'server').length)
      .toBeGreaterThan(8)
    expect(receiver.requests.length).toBeGreaterThan(0)
    for (const { body } of receiver.requests)
      for (const word of [secret, platform.key, 'token=', 'x-api-key']) expect(body.includes(word)).toBe(false)
  })

  it('leave out what is asked every few seconds by whoever watches the platform', async () => {
    for (const path of ['/health', '/ready', '/metrics']) await platform.call('GET', path)
    const { traceId, headers } = caller()
    await platform.call('GET', '/v1/capsules', undefined, headers)
    await spanOf(traceId, 'GET /v1/capsules')
    expect(receiver.spans.filter(({ name }) => /health|ready|metrics/.test(name))).toEqual([])
    // Nor is there anything of what goes on by itself.
    expect(receiver.spans.filter(({ name }) => name === `${HOST}/WatchCapsules`)).toEqual([])
  })

  it('cost no request its answer while nobody takes them', async () => {
    receiver.status = 503
    const asked = receiver.requests.length
    for (let count = 0; count < 20; count++) expect((await platform.call('GET', '/v1/capsules')).status).toBe(200)
    await expect.poll(() => receiver.requests.length).toBeGreaterThan(asked)
    const { id } = await platform.create()
    expect((await platform.get(id)).state).toBe('running')
    receiver.status = 200
  })
})
