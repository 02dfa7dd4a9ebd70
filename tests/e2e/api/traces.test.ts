import { randomBytes } from 'node:crypto'
import type { Capsule } from '@wrenn/protocol'
import { OtlpReceiver, type ReceivedSpan } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TestCapsule, usePlatform } from '../harness/api.js'

const { platform, api } = usePlatform()
const HOST = 'wrenn.host.v1.HostService'
let collector: OtlpReceiver

beforeAll(async () => {
  collector = await OtlpReceiver.start(platform.collectorPort)
})
afterAll(async () => {
  await collector[Symbol.asyncDispose]()
})

/** The spans on the way from `name` up to the request, the request first. */
async function wayTo(traceId: string, name: string): Promise<ReceivedSpan[]> {
  let span = await collector.span((each) => each.traceId === traceId && each.name === name, `${name} of ${traceId}`)
  const way = [span]
  while (!/^(?:GET|POST|DELETE) \//.test(span.name)) {
    const { parentId } = span
    span = await collector.span((each) => each.spanId === parentId, `what is above ${span.name}`)
    way.unshift(span)
  }
  return way
}

describe('traces', () => {
  it('go from the caller through both processes to the guest', async () => {
    const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')]
    const headers = { traceparent: `00-${traceId}-${spanId}-01` }
    const made = await api.json<Capsule>('POST', '/v1/capsules', { json: {}, headers, query: { wait_sec: '120' } })
    await using capsule = new TestCapsule(api, made)
    const { id, path } = capsule
    await api.json('POST', `${path}/exec`, { json: { cmd: '/bin/echo', args: ['S3CR3T'] }, headers })
    await api.json('POST', `${path}/pause`, { headers })
    await api.json('POST', `${path}/resume`, { headers })

    const create = await wayTo(traceId, 'guest POST /init')
    expect(create.map(({ service, name }) => `${service}: ${name}`)).toEqual([
      'wrenn-control-plane: POST /v1/capsules',
      'wrenn-control-plane: operation create',
      `wrenn-control-plane: ${HOST}/CreateCapsule`,
      `wrenn-host-agent: ${HOST}/CreateCapsule`,
      'wrenn-host-agent: guest POST /init',
    ])
    expect(create[0]?.parentId).toBe(spanId)
    expect(create[3]?.fields).toMatchObject({ 'wrenn.capsule_id': id })
    const command = await wayTo(traceId, 'process.Process/Start')
    expect(command.map(({ service, name }) => `${service}: ${name}`)).toEqual([
      'wrenn-control-plane: POST /v1/capsules/:id/exec',
      `wrenn-control-plane: ${HOST}/StartProcess`,
      `wrenn-host-agent: ${HOST}/StartProcess`,
      'wrenn-host-agent: process.Process/Start',
    ])
    for (const way of [create, command]) {
      for (const [index, span] of way.entries()) {
        expect(span.endNs).toBeGreaterThan(span.startNs)
        expect([span.name, span.failed]).toEqual([span.name, false])
        if (index > 0) expect(span.startNs).toBeGreaterThanOrEqual(way[index - 1]?.startNs ?? 0n)
      }
    }
    for (const step of ['step save', 'step restore']) {
      const way = await wayTo(traceId, step)
      expect(way.at(-1)?.service).toBe('wrenn-host-agent')
    }
    for (const { body } of collector.requests)
      for (const secret of ['S3CR3T', platform.apiKey]) expect(body.includes(secret)).toBe(false)
  })

  it('are made for nobody who asks for none', async () => {
    await api.list()
    expect(collector.spans.filter(({ name }) => name === 'GET /v1/capsules')).toEqual([])
  })
})
