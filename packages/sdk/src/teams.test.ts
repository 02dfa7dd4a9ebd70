import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn, WrennError } from './index.js'

const wireTeam = {
  id: 'team-1',
  name: 'Data science',
  slug: '012345-6789ab',
  is_byoc: false,
  audit_data_access: true,
  created_at: '2026-11-28T12:00:00.000Z',
  role: 'owner',
}
const wireInvitation = {
  id: 'inv-1',
  email: 'ada@example.org',
  role: 'viewer',
  invited_by: 'usr-1',
  inviter_name: 'Bob',
  created_at: '2026-11-28T12:00:00.000Z',
  sent_at: '2026-11-28T12:00:00.000Z',
  times_sent: 1,
  expires_at: '2026-12-05T12:00:00.000Z',
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

describe('teams', () => {
  it('are listed and made', async () => {
    server.handler = (_seen, response) => sendJson(response, [{ ...wireTeam, current: true }])
    const team = {
      id: 'team-1',
      name: 'Data science',
      slug: '012345-6789ab',
      auditsDataAccess: true,
      role: 'owner',
      createdAt: new Date('2026-11-28T12:00:00Z'),
    }
    expect(await wrenn.teams.list()).toEqual([{ ...team, isCurrent: true }])
    server.handler = (_seen, response) => sendJson(response, wireTeam, 201)
    expect(await wrenn.teams.create('Data science')).toEqual(team)
    expect(JSON.parse(server.seen[1]?.body ?? '')).toEqual({ name: 'Data science' })
  })

  it('say what is in their audit trail', async () => {
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.teams.auditDataAccess('team-1', true)
    expect(server.seen[0]).toMatchObject({ method: 'PATCH', path: '/v1/teams/team-1' })
    expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ audit_data_access: true })
    const { audit_data_access: _, ...ofBefore } = wireTeam
    server.handler = (_seen, response) => sendJson(response, [{ ...ofBefore, current: true }])
    expect(await wrenn.teams.list()).toMatchObject([{ auditsDataAccess: false }])
  })

  it('get people by invitation', async () => {
    server.handler = (_seen, response) => sendJson(response, wireInvitation, 201)
    expect(await wrenn.teams.invite('team-1', 'ada@example.org', { role: 'viewer' })).toMatchObject({
      id: 'inv-1',
      inviterName: 'Bob',
      expiresAt: new Date('2026-12-05T12:00:00Z'),
    })
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/v1/teams/team-1/invitations' })
    expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ email: 'ada@example.org', role: 'viewer' })
  })

  it('change by calls that say nothing, or why not', async () => {
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.teams.changeRole('team-1', 'usr-1', 'viewer')
    await wrenn.teams.remove('team-1', 'usr-1')
    await wrenn.teams.transfer('team-1', 'usr-1')
    await wrenn.teams.leave('team-1')
    expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'PATCH /v1/teams/team-1/members/usr-1',
      'DELETE /v1/teams/team-1/members/usr-1',
      'POST /v1/teams/team-1/transfer',
      'POST /v1/teams/team-1/leave',
    ])
    server.handler = (_seen, response) => sendJson(response, { error: { code: 'conflict', message: 'no' } }, 409)
    await expect(wrenn.teams.leave('team-1')).rejects.toThrow(WrennError)
  })
})
