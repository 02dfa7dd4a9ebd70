import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const wireEntry = {
  id: 'log-1',
  team_id: 'team-1',
  created_at: '2026-11-28T12:00:00.000Z',
  actor_type: 'system',
  action: 'capsule.exit',
  resource_type: 'capsule',
  resource_id: 'cl-1',
  scope: 'team',
  outcome: 'failure',
  details: { cause: 'oom_killed' },
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

describe('the audit trail', () => {
  it('is listed page after page, with what is asked for', async () => {
    server.handler = (seen, response) => {
      const isLast = seen.path.includes('cursor=two')
      const item = { ...wireEntry, id: isLast ? 'log-2' : 'log-1' }
      sendJson(response, { items: [item], ...(isLast ? {} : { next_cursor: 'two' }) })
    }
    const found: string[] = []
    const since = new Date('2026-11-01T00:00:00Z')
    for await (const { id, createdAt } of wrenn.audit.list({ actions: ['capsule.exit', 'capsule.lost'], since })) {
      expect(createdAt).toEqual(new Date('2026-11-28T12:00:00Z'))
      found.push(id)
    }
    expect(found).toEqual(['log-1', 'log-2'])
    const query = new URL(server.seen[1]?.path ?? '', server.url).searchParams
    expect(Object.fromEntries(query)).toEqual({
      action: 'capsule.exit,capsule.lost',
      since: '2026-11-01T00:00:00.000Z',
      limit: '200',
      cursor: 'two',
    })
  })

  it('is exported as it is on the wire', async () => {
    const line = `${JSON.stringify(wireEntry)}\n`
    server.handler = (_seen, response) => response.end(line)
    const bytes = await new Response(await wrenn.audit.export({ afterSeq: 7 })).text()
    expect(bytes).toBe(line)
    expect(server.seen[0]?.path).toBe('/v1/audit-logs/export?after_seq=7')
  })
})
