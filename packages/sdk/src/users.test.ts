import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { type UserInfo, Wrenn } from './index.js'

const wireUser = {
  id: 'usr-1',
  email: 'ada@example.com',
  name: 'Ada',
  status: 'pending',
  is_admin: true,
  created_at: '2026-11-28T12:00:00.000Z',
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

describe('accounts of people', () => {
  it('are made with the token that activates them', async () => {
    server.handler = (_seen, response) =>
      sendJson(
        response,
        { ...wireUser, activation_token: 'secret', activation_expires_at: '2026-12-05T12:00:00.000Z' },
        201,
      )
    const made = await wrenn.users.create('ada@example.com', 'Ada', { isAdmin: true })
    expect(made).toEqual({
      id: 'usr-1',
      email: 'ada@example.com',
      name: 'Ada',
      status: 'pending',
      isAdmin: true,
      createdAt: new Date('2026-11-28T12:00:00Z'),
      eraseAt: undefined,
      activationToken: 'secret',
      activationExpiresAt: new Date('2026-12-05T12:00:00Z'),
    })
    expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ email: 'ada@example.com', name: 'Ada', is_admin: true })
  })

  it('are listed page after page', async () => {
    const page = Array.from({ length: 200 }, (_, n) => ({ ...wireUser, id: `usr-${n}` }))
    server.handler = (seen, response) => sendJson(response, seen.path.includes('after=usr-199') ? [wireUser] : page)
    const all: UserInfo[] = []
    for await (const user of wrenn.users.list()) all.push(user)
    expect(all).toHaveLength(201)
  })

  it('are restored, while they can be', async () => {
    const eraseAt = '2026-12-13T12:00:00.000Z'
    server.handler = (_seen, response) => sendJson(response, { ...wireUser, status: 'deleted', erase_at: eraseAt })
    expect(await wrenn.users.restore('usr-1')).toMatchObject({ status: 'deleted', eraseAt: new Date(eraseAt) })
    expect(server.seen[0]).toMatchObject({ method: 'POST', path: '/v1/admin/users/usr-1/restore' })
  })

  it('are changed and activated', async () => {
    server.handler = (_seen, response) => sendJson(response, { ...wireUser, status: 'disabled' })
    expect(await wrenn.users.update('usr-1', { status: 'disabled' })).toMatchObject({ status: 'disabled' })
    expect(server.seen[0]).toMatchObject({ method: 'PATCH', path: '/v1/admin/users/usr-1' })
    await wrenn.users.activate('secret', 'correct horse')
    expect(JSON.parse(server.seen[1]?.body ?? '')).toEqual({ token: 'secret', password: 'correct horse' })
  })
})
