import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { AuthenticationError, type FollowEventsOptions, Wrenn, type WrennEvent } from './index.js'

let server: FakeServer
let wrenn: Wrenn
let abort: AbortController

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
  abort = new AbortController()
})
afterEach(async () => {
  abort.abort()
  await server[Symbol.asyncDispose]()
})

const text = (id: string, type: string): string => {
  const event = {
    id,
    type,
    at: '2026-11-28T12:00:00.000Z',
    team_id: 'team-1',
    resource_id: 'cl-1',
    data: { name: 'Ä' },
  }
  return `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(event)}\n\n`
}
const begin = (response: ServerResponse): ServerResponse =>
  response.writeHead(200, { 'content-type': 'text/event-stream' })

/** The first events, as many as asked for. */
async function take(count: number, options: FollowEventsOptions = {}): Promise<WrennEvent[]> {
  const events: WrennEvent[] = []
  for await (const event of wrenn.events.follow({ signal: abort.signal, ...options })) {
    events.push(event)
    if (events.length === count) break
  }
  return events
}

describe('events', () => {
  it('come as they happen, however the bytes are cut, and comments are no events', async () => {
    const bytes = Buffer.from(`: here\n\n${text('1', 'ready')}: here\n\n${text('2', 'capsule.state')}`)
    server.handler = (_seen, response) => {
      begin(response)
      for (const byte of bytes) response.write(Buffer.of(byte))
    }
    const events = await take(2)
    expect(events.map(({ type }) => type)).toEqual(['ready', 'capsule.state'])
    expect(events[1]).toEqual({
      id: '2',
      type: 'capsule.state',
      at: new Date('2026-11-28T12:00:00Z'),
      teamId: 'team-1',
      resourceId: 'cl-1',
      data: { name: 'Ä' },
    })
  })

  it('go on after the last one when the connection breaks, ends, or is refused for a while', async () => {
    let attempt = 0
    server.handler = (_seen, response) => {
      attempt++
      if (attempt === 1) begin(response).end(text('1', 'ready'))
      else if (attempt === 2) sendJson(response, { error: { code: 'host_unavailable', message: 'stopping' } }, 503)
      else if (attempt === 3) begin(response).write(text('2', 'capsule.state'), () => response.destroy())
      else begin(response).write(text('3', 'relist'))
    }
    const states: string[] = []
    const events = await take(3, { onConnection: (state) => states.push(state) })
    expect(events.map(({ id }) => id)).toEqual(['1', '2', '3'])
    expect(states).toEqual(['lost', 'restored', 'lost', 'restored'])
    expect(server.seen.map(({ path }) => path)).toEqual([
      '/v1/events',
      '/v1/events?after=1',
      '/v1/events?after=1',
      '/v1/events?after=2',
    ])
  })

  it('begin where they are told to', async () => {
    server.handler = (_seen, response) => begin(response).write(text('8', 'capsule.state'))
    await take(1, { after: '7' })
    expect(server.seen[0]?.path).toBe('/v1/events?after=7')
    expect(server.seen[0]?.headers['x-api-key']).toBe(KEY)
  })

  it('end with the signal, and with what no other attempt can mend', async () => {
    server.handler = (_seen, response) => begin(response).write(text('1', 'ready'))
    const events: WrennEvent[] = []
    for await (const event of wrenn.events.follow({ signal: abort.signal })) {
      events.push(event)
      abort.abort()
    }
    expect(events).toHaveLength(1)
    abort = new AbortController()
    server.handler = (_seen, response) => sendJson(response, { error: { code: 'unauthorized', message: 'no' } }, 401)
    await expect(take(1)).rejects.toThrow(AuthenticationError)
  })
})
