import { afterEach, beforeEach, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const at = '2026-01-02T03:04:05.000Z'
const id = `host-${'1'.repeat(25)}`
const pending = {
  id,
  type: 'regular',
  status: 'pending',
  schedulable: true,
  tags: ['eu'],
  created_by: 'key-1',
  created_at: at,
  updated_at: at,
}
const facts = { address: '10.1.2.3:7443', arch: 'x64', cpu_cores: 2, memory_mb: 4096, disk_gb: 100 }
const joined = { ...pending, ...facts, status: 'online', last_heartbeat_at: at, certificate_expires_at: at }
let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => await server[Symbol.asyncDispose]())

it('hosts get a place and a token, are looked at, and sent away', async () => {
  server.handler = ({ method, path }, response) => {
    if (method === 'DELETE') return response.writeHead(204).end()
    const made = { host: pending, registration_token: 'wrj_1', registration_expires_at: at }
    if (/\/(?:un)?cordon$/.test(path))
      return sendJson(response, { ...joined, schedulable: !path.endsWith('/cordon') }, 200)
    if (method === 'POST') return sendJson(response, made, 201)
    return sendJson(response, path === '/v1/hosts' ? [joined] : joined, 200)
  }
  const made = await wrenn.hosts.create()
  expect(made).toMatchObject({ token: 'wrj_1', tokenExpiresAt: new Date(at), host: { id, status: 'pending' } })
  expect(made.host.address).toBeUndefined()
  expect((await wrenn.hosts.renewToken(id)).token).toBe('wrj_1')
  const [listed] = await wrenn.hosts.list()
  expect(listed).toEqual({
    ...{
      id,
      status: 'online',
      schedulable: true,
      tags: ['eu'],
      address: '10.1.2.3:7443',
      arch: 'x64',
      cpuCores: 2,
      memoryMib: 4096,
      diskGib: 100,
    },
    ...{
      lastHeartbeatAt: new Date(at),
      certificateExpiresAt: new Date(at),
      createdBy: 'key-1',
      createdAt: new Date(at),
    },
  })
  expect(await wrenn.hosts.get(id)).toEqual(listed)
  expect((await wrenn.hosts.cordon(id)).schedulable).toBe(false)
  expect((await wrenn.hosts.uncordon(id)).schedulable).toBe(true)
  expect((await wrenn.hosts.tag(id, ['gpu', 'eu'])).id).toBe(id)
  await wrenn.hosts.rotateAuthority()
  await wrenn.hosts.remove(id)
  await wrenn.hosts.remove(id, { force: true })
  expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
    'POST /v1/hosts',
    `POST /v1/hosts/${id}/token`,
    'GET /v1/hosts',
    `GET /v1/hosts/${id}`,
    `POST /v1/hosts/${id}/cordon`,
    `POST /v1/hosts/${id}/uncordon`,
    `PUT /v1/hosts/${id}/tags`,
    'POST /v1/hosts/rotate-authority',
    `DELETE /v1/hosts/${id}`,
    `DELETE /v1/hosts/${id}?force=true`,
  ])
})

it('capsules are moved until the move has ended, and it is looked at afterwards', async () => {
  const capsuleId = `cl-${'1'.repeat(25)}`
  const other = `host-${'2'.repeat(25)}`
  const move = {
    ...{ id: 'op-1', capsule_id: capsuleId, team_id: 'team-1', state: 'running', capsule_state: 'paused' },
    ...{
      from_host_id: id,
      to_host_id: other,
      because: 'it was asked for',
      host_id: id,
      created_at: at,
      updated_at: at,
    },
  }
  server.handler = (_seen, response) =>
    sendJson(
      response,
      server.seen.length === 1 ? move : { ...move, state: 'succeeded', capsule_state: 'running', host_id: other },
      200,
    )
  const moved = await wrenn.hosts.moveCapsule(capsuleId, { hostId: other })
  expect(moved).toEqual({
    ...{ id: 'op-1', capsuleId, teamId: 'team-1', state: 'succeeded', capsuleState: 'running' },
    ...{ fromHostId: id, toHostId: other, because: 'it was asked for', hostId: other, error: undefined },
    ...{ createdAt: new Date(at), updatedAt: new Date(at) },
  })
  expect((await wrenn.hosts.getMove(capsuleId)).state).toBe('succeeded')
  const asked = server.seen.map(({ method, path }) => `${method} ${path.split('?')[0]}`)
  const path = `/v1/admin/capsules/${capsuleId}/move`
  expect(asked).toEqual([`POST ${path}`, `POST ${path}`, `GET ${path}`])
  expect(server.seen.slice(0, 2).map(({ body }) => JSON.parse(String(body)))).toEqual([
    { host_id: other },
    { host_id: other },
  ])
})

it('hosts are drained, and are looked at and left alone afterwards', async () => {
  const capsuleId = `cl-${'1'.repeat(25)}`
  const error = { code: 'no_hosts_available', message: 'No host has room.' }
  const counts = { concurrency: 2, total: 3, done: 1, moving: 1, waiting: 0, failed: 1 }
  const each = { capsule_id: capsuleId, team_id: 'team-1', state: 'failed', attempts: 1, operation_id: 'op-1' }
  const drain = {
    ...{ host_id: id, state: 'draining', ...counts, capsules: [{ ...each, error, updated_at: at }] },
    ...{ templates: [{ id: 'snap-1', team_id: 'team-1', name: 'base' }], started_at: at },
  }
  server.handler = ({ method }, response) =>
    method === 'DELETE' ? response.writeHead(204).end() : sendJson(response, drain, 200)
  const asked = await wrenn.hosts.drain(id, { concurrency: 2 })
  expect(asked).toEqual({
    ...{ hostId: id, state: 'draining', ...counts },
    capsules: [
      {
        capsuleId,
        teamId: 'team-1',
        state: 'failed',
        attempts: 1,
        operationId: 'op-1',
        error,
        updatedAt: new Date(at),
      },
    ],
    templates: [{ id: 'snap-1', teamId: 'team-1', name: 'base' }],
    ...{ startedAt: new Date(at), endedAt: undefined },
  })
  expect(await wrenn.hosts.getDrain(id)).toEqual(asked)
  await wrenn.hosts.stopDrain(id)
  expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual(
    ['POST', 'GET', 'DELETE'].map((method) => `${method} /v1/hosts/${id}/drain`),
  )
  expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ concurrency: 2 })
})
