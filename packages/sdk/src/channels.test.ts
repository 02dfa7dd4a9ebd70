import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const AT = '2026-01-02T03:04:05.000Z'
const channel = {
  ...{ id: 'ch-1', team_id: 'team-1', name: 'ours', provider: 'webhook', target: 'example.com', events: ['*'] },
  ...{ enabled: true, waiting: 2, created_at: AT, updated_at: AT },
}
const info = {
  ...{ id: 'ch-1', name: 'ours', provider: 'webhook', target: 'example.com', events: ['*'], isEnabled: true },
  ...{ problem: undefined, waiting: 2, retryAt: undefined, createdAt: new Date(AT), updatedAt: new Date(AT) },
}
const delivery = {
  id: 'd-1',
  channel_id: 'ch-1',
  event: 'capsule.created',
  resource_id: 'cl-1',
  at: AT,
  state: 'dead',
  attempts: 3,
}
let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})
const asked = (at = -1): [string, string, unknown] => {
  const { method = '', path = '', body = '' } = server.seen.at(at) ?? {}
  return [method, path, body === '' ? undefined : JSON.parse(body)]
}

describe('channels', () => {
  it('are made with a secret that is in this answer alone', async () => {
    server.handler = (_seen, response) => sendJson(response, { ...channel, secret: 'whsec_x' }, 201)
    const config = { url: 'https://example.com' }
    expect(await wrenn.channels.create('ours', 'webhook', config)).toEqual({ ...info, secret: 'whsec_x' })
    expect(asked()).toEqual(['POST', '/v1/channels', { name: 'ours', provider: 'webhook', config, events: ['*'] }])
    await wrenn.channels.create('ours', 'webhook', config, { events: ['capsule.*'] })
    expect(asked()[2]).toMatchObject({ events: ['capsule.*'] })
  })

  it('are listed, all pages of them', async () => {
    server.handler = (seen, response) =>
      seen.path.includes('cursor=ch-1')
        ? sendJson(response, [{ ...channel, problem: 'It is away.', retry_at: AT }])
        : sendJson(response, [channel], 200, { 'x-next-token': 'ch-1' })
    expect(await wrenn.channels.list()).toEqual([info, { ...info, problem: 'It is away.', retryAt: new Date(AT) }])
  })

  it('are changed, addressed anew, and deleted', async () => {
    server.handler = ({ method }, response) =>
      method === 'DELETE' ? response.writeHead(204).end() : sendJson(response, channel)
    expect(await wrenn.channels.get('ch-1')).toEqual(info)
    await wrenn.channels.update('ch-1', { enabled: false })
    expect(asked()).toEqual(['PATCH', '/v1/channels/ch-1', { enabled: false }])
    await wrenn.channels.replaceConfig('ch-1', { url: 'https://other.example' })
    expect(asked()).toEqual(['PUT', '/v1/channels/ch-1/config', { config: { url: 'https://other.example' } }])
    await wrenn.channels.delete('ch-1')
    expect(asked()).toEqual(['DELETE', '/v1/channels/ch-1', undefined])
  })

  it('get another secret', async () => {
    server.handler = (_seen, response) => sendJson(response, { secret: 'whsec_y', previous_until: AT })
    expect(await wrenn.channels.rotateSecret('ch-1')).toEqual({ secret: 'whsec_y', previousUntil: new Date(AT) })
    expect(asked()).toEqual(['POST', '/v1/channels/ch-1/rotate-secret', undefined])
  })

  it('are tested before and after they are saved', async () => {
    server.handler = (_seen, response) => sendJson(response, { status: 'ok', duration_ms: 12 })
    expect(await wrenn.channels.test('slack', { webhook_url: 'x' })).toEqual({ durationMs: 12 })
    expect(asked()).toEqual(['POST', '/v1/channels/test', { provider: 'slack', config: { webhook_url: 'x' } }])
    expect(await wrenn.channels.testSaved('ch-1')).toEqual({ durationMs: 12 })
    const details = { status: 404, answer: 'no_service' }
    server.handler = (_seen, response) =>
      sendJson(response, { error: { code: 'channel_test_failed', message: 'No.', details } }, 502)
    await expect(wrenn.channels.testSaved('ch-1')).rejects.toMatchObject({ code: 'channel_test_failed', details })
  })

  it('have a log, of which all pages are read, and what was given up is sent again', async () => {
    const request = { method: 'POST', url: 'https://example.com/***', headers: {}, body: '{}' }
    server.handler = ({ method, path }, response) => {
      if (path.endsWith('/ch-1/resend')) return sendJson(response, { resent: 7 }, 202)
      if (method === 'POST') return sendJson(response, { ...delivery, state: 'pending' }, 202)
      if (!path.includes('cursor=5')) return sendJson(response, { items: [delivery], next_cursor: 5 })
      sendJson(response, {
        items: [
          { ...delivery, ended_at: AT, reason: 'No.', request, answer: { status: 422, body: 'no', duration_ms: 3 } },
        ],
      })
    }
    const found = []
    for await (const each of wrenn.channels.deliveries('ch-1', { state: 'dead' })) found.push(each)
    expect(found).toMatchObject([
      { id: 'd-1', resourceId: 'cl-1', at: new Date(AT), endedAt: undefined, answer: undefined },
      { endedAt: new Date(AT), reason: 'No.', request, answer: { status: 422, body: 'no', durationMs: 3 } },
    ])
    expect(asked(0)[1]).toBe('/v1/channels/ch-1/deliveries?state=dead&limit=50')
    expect(await wrenn.channels.resend('ch-1', 'd-1')).toMatchObject({ state: 'pending' })
    expect(asked()[1]).toBe('/v1/channels/ch-1/deliveries/d-1/resend')
    expect(await wrenn.channels.resendDead('ch-1')).toBe(7)
  })
})
