import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const policy = { internet: false, allow: ['203.0.113.0/24'], deny: [] }
let server: FakeServer

beforeEach(async () => {
  server = await new FakeServer().start()
  server.handler = ({ path }, response) =>
    sendJson(response, path.endsWith('/egress') ? { policy, in_force: false } : capsule('running'))
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

describe('what a capsule may reach', () => {
  it('is read and replaced as a whole', async () => {
    const found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
    expect(await found.egress.get()).toEqual({ policy, inForce: false })
    expect(await found.egress.set({ internet: false, allow: ['203.0.113.0/24'] })).toEqual({ policy, inForce: false })
    const [, read, written] = server.seen
    expect([read?.method, written?.method, written?.path]).toEqual(['GET', 'PUT', `/v1/capsules/${ID}/egress`])
    expect(JSON.parse(written?.body ?? '')).toEqual({ internet: false, allow: ['203.0.113.0/24'] })
  })
})
