import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { AuthenticationError, Wrenn } from './index.js'

const wireKey = {
  id: 'key-1',
  team_id: 'team-1',
  name: 'ci',
  key_prefix: 'wrn_01234567',
  scopes: ['capsules'],
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

describe('API keys', () => {
  it('are made with what is asked for, and come with the key itself', async () => {
    server.handler = (_seen, response) => {
      sendJson(response, { ...wireKey, expires_at: '2026-11-29T12:00:00.000Z', key: 'wrn_secret' }, 201)
    }
    const made = await wrenn.apiKeys.create({ name: 'ci', scopes: ['capsules'], expiresInMs: 86_400_500 })
    expect(made).toMatchObject({
      key: 'wrn_secret',
      prefix: 'wrn_01234567',
      expiresAt: new Date('2026-11-29T12:00:00Z'),
    })
    expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ name: 'ci', scopes: ['capsules'], expires_in_sec: 86_400 })
    await wrenn.apiKeys.create()
    expect(JSON.parse(server.seen[1]?.body ?? '')).toEqual({})
  })

  it('are listed without the key', async () => {
    server.handler = (_seen, response) => sendJson(response, [{ ...wireKey, last_used: '2026-11-28T13:00:00.000Z' }])
    expect(await wrenn.apiKeys.list()).toEqual([
      {
        id: 'key-1',
        name: 'ci',
        prefix: 'wrn_01234567',
        scopes: ['capsules'],
        createdBy: undefined,
        createdAt: new Date('2026-11-28T12:00:00Z'),
        expiresAt: undefined,
        lastUsedAt: new Date('2026-11-28T13:00:00Z'),
      },
    ])
  })

  it('are listed to the last page', async () => {
    server.handler = (seen, response) => {
      if (!seen.path.includes('cursor=')) response.setHeader('x-next-token', 'two')
      sendJson(response, [{ ...wireKey, id: seen.path.includes('cursor=two') ? 'key-2' : 'key-1' }])
    }
    expect((await wrenn.apiKeys.list()).map(({ id }) => id)).toEqual(['key-1', 'key-2'])
  })

  it('are revoked by id, and say so when they may not', async () => {
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.apiKeys.revoke('key-1')
    expect(server.seen[0]).toMatchObject({ method: 'DELETE', path: '/v1/api-keys/key-1' })
    server.handler = (_seen, response) => sendJson(response, { error: { code: 'forbidden', message: 'no' } }, 403)
    await expect(wrenn.apiKeys.revoke('key-1')).rejects.toThrow(AuthenticationError)
  })
})
