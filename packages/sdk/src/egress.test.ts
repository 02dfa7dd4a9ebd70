import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const policy = { internet: false, allow: ['203.0.113.0/24', '*.example.org'], deny: [] }
const lastAt = '2026-01-02T03:04:05.000Z'
const refused = [
  { name: 'bad.example', port: 53, reason: 'denied', rule: '*.example', count: 2, last_at: lastAt },
  { address: '198.51.100.7', port: 22, reason: 'no_name', count: 1, last_at: lastAt },
]
let server: FakeServer

beforeEach(async () => {
  server = await new FakeServer().start()
  server.handler = ({ path }, response) =>
    sendJson(response, path.endsWith('/egress') ? { policy, in_force: false, refused } : capsule('running'))
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

describe('what a capsule may reach', () => {
  it('has what was used, and a policy of it, while it learns', async () => {
    const destinations = [
      { protocol: 'tcp', name: 'pypi.org', named_by: 'connection', address: '203.0.113.9', port: 443, count: 3 },
      { protocol: 'udp', address: '198.51.100.7', port: 123, count: 1 },
    ]
    const proposal = { internet: false, allow: ['pypi.org', '198.51.100.7'], deny: [] }
    const learned = { destinations, complete: false, proposal }
    server.handler = ({ path }, response) =>
      sendJson(
        response,
        path.endsWith('/egress') ? { policy, in_force: true, refused: [], learned } : capsule('running'),
      )
    const found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
    const [named, nameless] = destinations
    expect((await found.egress.get()).learned).toEqual({
      complete: false,
      proposal,
      destinations: [
        { ...named, named_by: undefined, namedBy: 'connection' },
        { ...nameless, name: undefined, namedBy: undefined },
      ],
    })
    await found.egress.set({ learn: true })
    expect(JSON.parse(server.seen.at(-1)?.body ?? '')).toEqual({ learn: true })
  })

  it('takes what headers are set to, and names of those that stay', async () => {
    const found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
    const rules = [{ host: 'api.example.org', headers: ['authorization'] }]
    server.handler = (_request, response) =>
      sendJson(response, { policy: { ...policy, rules }, in_force: true, refused: [] })
    const wish = [...rules, { host: '*.example.net', headers: { 'x-key': 'a secret' } }]
    await found.egress.set({ rules: wish })
    expect(JSON.parse(server.seen.at(-1)?.body ?? '')).toEqual({ rules: wish })
    expect((await found.egress.get()).policy.rules).toEqual(rules)
  })

  it('is read and replaced as a whole', async () => {
    const found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
    const [named, nameless] = refused
    expect(await found.egress.get()).toEqual({
      policy,
      inForce: false,
      refused: [
        { ...named, last_at: undefined, address: undefined, lastAt: new Date(lastAt) },
        { ...nameless, last_at: undefined, name: undefined, rule: undefined, lastAt: new Date(lastAt) },
      ],
    })
    expect(await found.egress.set({ internet: false, allow: ['*.example.org'] })).toEqual({ policy, inForce: false })
    const [, read, written] = server.seen
    expect([read?.method, written?.method, written?.path]).toEqual(['GET', 'PUT', `/v1/capsules/${ID}/egress`])
    expect(JSON.parse(written?.body ?? '')).toEqual({ internet: false, allow: ['*.example.org'] })
  })
})
