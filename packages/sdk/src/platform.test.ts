import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const AT = '2026-01-02T03:04:05.000Z'
let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

describe('the platform', () => {
  it('lists the capsules of all teams, page after page', async () => {
    const capsule = {
      ...{ id: 'cl-1', state: 'running', team_id: 'team-1', team_name: 'One', template: 'minimal' },
      ...{ vcpus: 1, memory_mb: 512, created_at: AT },
    }
    server.handler = (seen, response) =>
      sendJson(response, seen.path.includes('cursor=two') ? { items: [capsule] } : { items: [], next_cursor: 'two' })
    const found = []
    for await (const each of wrenn.platform.capsules({ state: 'running', teamId: 'team-1' })) found.push(each)
    expect(found).toMatchObject([
      { id: 'cl-1', teamName: 'One', memoryMib: 512, createdAt: new Date(AT), lastActiveAt: undefined },
    ])
    expect(server.seen[0]?.path).toBe('/v1/admin/capsules?state=running&team_id=team-1&limit=1000')
  })

  it('tells how it does, a host that does not answer included', async () => {
    const host = {
      address: 'unix:/a',
      answers: false,
      running_capsules: 1,
      used_vcpus: 1,
      used_memory_mb: 2,
      capsules: 3,
      templates: 2,
      unknown_capsules: ['cl-9'],
    }
    const problem = { severity: 'error', part: 'host', message: 'It is silent.', next_step: 'Look.' }
    server.handler = (_seen, response) =>
      sendJson(response, {
        problems: [problem],
        hosts: [host],
        control_plane: { version: '1', started_at: AT, replicas: 2 },
        database: { version: '16', migration: '0001', pending_migrations: 0, latency_ms: 1.5 },
        mail: { via: 'smtp', to: 'mail:25', from: 'a@b', waiting: 1, oldest_waiting_at: AT, given_up: 0 },
        lago: { to: 'lago:443', waiting: 2, oldest_waiting_at: AT, refused: 1, problem: 'It says no.' },
      })
    const health = await wrenn.platform.health()
    expect(health.problems).toEqual([{ severity: 'error', part: 'host', message: 'It is silent.', nextStep: 'Look.' }])
    expect(health.hosts).toMatchObject([
      { id: undefined, usedMemoryMib: 2, unknownCapsules: ['cl-9'], lastSeenAt: undefined, status: undefined },
    ])
    expect(health.controlPlane).toEqual({ version: '1', startedAt: new Date(AT), replicas: 2 })
    expect(health.mail.oldestWaitingAt).toEqual(new Date(AT))
    const lago = { to: 'lago:443', waiting: 2, oldestWaitingAt: new Date(AT), refused: 1, problem: 'It says no.' }
    expect(health.lago).toEqual(lago)
  })

  it('destroys what only a host knows', async () => {
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.platform.destroyUnknownCapsule('cl-9')
    expect(server.seen).toMatchObject([{ method: 'DELETE', path: '/v1/admin/unknown-capsules/cl-9' }])
  })

  it('has a trail of its own', async () => {
    server.handler = (_seen, response) => sendJson(response, { items: [] })
    expect(await wrenn.platform.audit({ outcome: 'failure' }).next()).toEqual({ done: true, value: undefined })
    expect(server.seen[0]?.path).toBe('/v1/admin/audit-logs?outcome=failure&limit=200')
  })
})
