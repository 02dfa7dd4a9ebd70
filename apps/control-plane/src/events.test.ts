import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { waitFor } from '@wrenn/base'
import type { Auth, ErrorBody, NewApiKey, NewUser } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { type EventStream, useEventStreams } from './testing/event-stream.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const DAY_MS = 24 * 3600_000
const followUntilEnd = useEventStreams()

let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({ timing: { eventBeatMs: 200 } })
  db = openDatabase({ url: platform.databaseUrl })
  // The first one owns the team that the key is of.
  await person()
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

async function follow(query = '', headers: Record<string, string> = {}, url = platform.url): Promise<EventStream> {
  return await followUntilEnd(url, { 'x-api-key': platform.key, ...headers }, query)
}

async function refusal(query: string, headers: Record<string, string> = {}): Promise<string> {
  const response = await fetch(`${platform.url}/v1/events${query}`, {
    headers: { 'x-api-key': platform.key, ...headers },
  })
  return `${response.status} ${(await json<ErrorBody>(response, response.status)).error.code}`
}

async function keyWith(...scopes: string[]): Promise<NewApiKey> {
  return await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes }), 201)
}

async function keyOf(token: string): Promise<NewApiKey> {
  return await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', {}, { 'x-api-key': token }), 201)
}

async function person(): Promise<Auth> {
  const email = `p${randomBytes(6).toString('hex')}@example.com`
  const made = await json<NewUser>(await platform.call('POST', '/v1/admin/users', { email, name: 'P' }), 201)
  const body = { token: made.activation_token, password: 'correct horse battery' }
  return await json<Auth>(await platform.call('POST', '/v1/auth/activate', body), 200)
}

const teamOf = async (): Promise<string> =>
  (await db.selectFrom('teams').select('id').orderBy('created_at').executeTakeFirstOrThrow()).id

/** As a trigger would, for a place in time. */
async function addEvents(teamId: string, count: number, age = '0 s'): Promise<void> {
  await sql`INSERT INTO events (team_id, type, resource_id, data, at)
    SELECT ${teamId}, 'capsule.updated', 'cl-' || n, '{}', now() - ${age}::interval
    FROM generate_series(1, ${count}) AS n`.execute(db)
}

describe('a stream of events', () => {
  it('tells of a capsule from its making to its end, and when its record is gone', async () => {
    const stream = await follow()
    const ready = await stream.event('ready')
    expect(ready).toMatchObject({ team_id: await teamOf(), resource_id: '', data: {} })
    const { id } = await platform.create({ name: 'box' })
    await platform.until(id, 'running')
    expect((await stream.event('capsule.created', id)).data).toMatchObject({ name: 'box' })
    await json(await platform.call('PATCH', `/v1/capsules/${id}`, { timeout_sec: 600 }), 200)
    await stream.event('capsule.updated', id)
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    const states = () => stream.events.filter(({ type }) => type === 'capsule.state').map(({ data }) => data.state)
    await stream.until('paused', () => states().includes('paused'))
    await platform.call('DELETE', `/v1/capsules/${id}`)
    await stream.until('stopped', () => states().includes('stopped'))
    expect(states()).toEqual(expect.arrayContaining(['running', 'pausing', 'paused', 'stopping', 'stopped']))
    await db.deleteFrom('capsules').where('id', '=', id).execute()
    await stream.event('capsule.removed', id)
  })

  it('tells of checkpoints, templates, keys and members', async () => {
    const stream = await follow()
    await stream.event('ready')
    const { id } = await platform.create()
    await platform.until(id, 'running')
    const point = await json<{ id: string }>(
      await platform.call('POST', `/v1/capsules/${id}/checkpoints`, { name: 'one' }),
      201,
    )
    expect((await stream.event('checkpoint.created', point.id)).data).toEqual({ capsule_id: id, name: 'one' })
    await platform.call('DELETE', `/v1/capsules/${id}/checkpoints/${point.id}`)
    await stream.event('checkpoint.removed', point.id)
    await json(await platform.call('POST', '/v1/snapshots', { capsule_id: id, name: 'warm' }), 201)
    expect((await stream.event('template.created')).data).toEqual({ name: 'warm' })
    await platform.call('DELETE', '/v1/snapshots/warm')
    expect((await stream.event('template.removed')).data).toEqual({ name: 'warm' })
    const key = await keyWith('read')
    expect((await stream.event('api_key.created', key.id)).data).toEqual({ name: key.name })
    await platform.call('DELETE', `/v1/api-keys/${key.id}`)
    await stream.event('api_key.revoked', key.id)
    const { user_id } = await person()
    const teamId = await teamOf()
    await db.insertInto('team_members').values({ team_id: teamId, user_id, role: 'member' }).execute()
    expect((await stream.event('member.joined', user_id)).data).toEqual({ role: 'member' })
    await db.updateTable('team_members').set({ role: 'viewer' }).where('user_id', '=', user_id).execute()
    expect((await stream.event('member.role', user_id)).data).toEqual({ role: 'viewer' })
    await db.deleteFrom('team_members').where('user_id', '=', user_id).execute()
    await stream.event('member.left', user_id)
  })

  it('is taken up after the last event that was seen, by parameter or header, without a gap or a repetition', async () => {
    const first = await follow()
    const { id: start } = await first.event('ready')
    first.end()
    const { id } = await platform.create()
    await platform.until(id, 'running')
    const second = await follow(`?after=${start}`)
    await second.until('running', () => second.events.some(({ data }) => data.state === 'running'))
    const all = second.events.filter(({ resource_id }) => resource_id === id).map((each) => each.id)
    const third = await follow('', { 'last-event-id': all[0] ?? '' })
    await third.until('the rest', () => third.events.some((each) => each.id === all.at(-1)))
    const rest = third.events.filter(({ resource_id }) => resource_id === id).map((each) => each.id)
    expect(rest).toEqual(all.slice(1))
    expect(third.events.some(({ type }) => type === 'ready' || type === 'relist')).toBe(false)
  })

  it('passes by nothing that commits late, and keeps the order of transactions', async () => {
    const stream = await follow()
    await stream.event('ready')
    const teamId = await teamOf()
    const early = await db.startTransaction().execute()
    await sql`INSERT INTO events (team_id, type, resource_id, data) VALUES (${teamId}, 'capsule.updated', 'early', '{}')`.execute(
      early,
    )
    await sql`INSERT INTO events (team_id, type, resource_id, data) VALUES (${teamId}, 'capsule.updated', 'late', '{}')`.execute(
      db,
    )
    await sql`SELECT pg_notify('team_event', ${teamId})`.execute(db)
    const { comments } = stream
    await stream.until('signs of life', () => stream.comments > comments + 2)
    expect(stream.events.map(({ resource_id }) => resource_id)).not.toContain('late')
    // Nothing is told of this commit: who has something to wait for looks again.
    await early.commit().execute()
    await stream.event('capsule.updated', 'late')
    const seen = stream.events.map(({ resource_id }) => resource_id).filter((each) => ['early', 'late'].includes(each))
    expect(seen).toEqual(['early', 'late'])
  })

  it('is the same at another control plane', async () => {
    await using replica = await startReplica(platform)
    const stream = await follow('', {}, replica.url)
    await stream.event('ready')
    const { id } = await platform.create()
    await stream.event('capsule.created', id)
    stream.end()
  })

  it('asks for a new list when too much was missed, or too long ago, or in another life of the database', async () => {
    const teamId = await teamOf()
    const stream = await follow()
    const { id: start } = await stream.event('ready')
    await addEvents(teamId, 10_001)
    const behind = await follow(`?after=${start}`)
    expect((await behind.event('relist')).resource_id).toBe('')
    const { id } = await platform.create()
    await behind.event('capsule.created', id)
    expect(behind.events.filter(({ resource_id }) => /^cl-\d{1,5}$/.test(resource_id))).toEqual([])
    const [xid = '', n = '', , team = ''] = start.split('-')
    const old = await follow(`?after=${xid}-${n}-${Date.now() - DAY_MS}-${team}`)
    await old.event('relist')
    const elsewhere = await follow(`?after=${BigInt(xid) + 1_000_000n}-1-${Date.now()}-${team}`)
    await elsewhere.event('relist')
    const nobodys = await follow(`?after=${xid}-${n}-${Date.now()}`)
    await nobodys.event('relist')
  })

  it('asks for a new list at a place of another team', async () => {
    const { token = '' } = await person()
    const theirs = await follow('', { 'x-api-key': token })
    const { id: place } = await theirs.event('ready')
    const mine = await follow(`?after=${place}`)
    await mine.event('relist')
    const again = await follow(`?after=${place}`, { 'x-api-key': token })
    await keyOf(token)
    await again.event('api_key.created')
    expect(again.events.map(({ type }) => type)).toEqual(['api_key.created'])
  })

  it('comes in pages, whole, to who was just not too far behind', async () => {
    const stream = await follow()
    const { id: start } = await stream.event('ready')
    await addEvents(await teamOf(), 1_700)
    const behind = await follow(`?after=${start}`)
    await behind.until(
      'all of them',
      () => behind.events.filter(({ type }) => type === 'capsule.updated').length >= 1_700,
    )
    expect(new Set(behind.events.map(({ id }) => id)).size).toBe(behind.events.length)
  })

  it('says that it is alive while nothing happens', async () => {
    const stream = await follow()
    await stream.until('three signs of life', () => stream.comments >= 4)
  })

  it('leaves out what its follower may not see, and other teams altogether', async () => {
    const { key } = await keyWith('read')
    const stream = await follow('', { 'x-api-key': key })
    await stream.event('ready')
    const other = await person()
    const theirs = await follow('', { 'x-api-key': other.token ?? '' })
    await theirs.event('ready')
    await keyWith('read')
    const { id } = await platform.create()
    await stream.event('capsule.created', id)
    expect(stream.events.filter(({ type }) => /api_key|member/.test(type))).toEqual([])
    await keyOf(other.token ?? '')
    await theirs.event('api_key.created')
    expect(theirs.events.map(({ type }) => type)).toEqual(['ready', 'api_key.created'])
  })

  it('ends with the key, and with the session whose role changes', async () => {
    const key = await keyWith('read')
    const stream = await follow('', { 'x-api-key': key.key })
    await platform.call('DELETE', `/v1/api-keys/${key.id}`)
    await stream.until('its end', () => stream.isOver)
    const { token = '', user_id } = await person()
    const theirs = await follow('', { 'x-api-key': token })
    await db.updateTable('team_members').set({ role: 'viewer' }).where('user_id', '=', user_id).execute()
    await theirs.until('its end', () => theirs.isOver)
  })

  it('is refused to who may not look, with a strange place, and beyond 100 of a team', async () => {
    const { key } = await keyWith('admin')
    expect(await refusal('', { 'x-api-key': key })).toBe('403 forbidden')
    for (const after of ['x', '1-2', '99999999999999999999-1-1', '1-9999999999999999-1', `${'1'.repeat(65)}-1-1`, '']) {
      expect([after, await refusal(`?after=${after}`)]).toEqual([after, '400 invalid_request'])
    }
    const theirs = { 'x-api-key': (await person()).token ?? '' }
    const many: EventStream[] = []
    for (let n = 0; n < 100; n++) many.push(await follow('', theirs))
    expect(await refusal('', theirs)).toBe('429 limit_exceeded')
    expect(await statusOf({})).toBe(200)
    many[0]?.end()
    const hasRoom = async () => ((await statusOf(theirs)) === 200 ? true : undefined)
    await waitFor(hasRoom, { timeoutMs: 20_000, what: 'room' })
  })

  it('ends at once when the control plane stops, and is taken up afterwards', async () => {
    const stream = await follow()
    const { id: start } = await stream.event('ready')
    await platform.restart()
    await stream.until('its end', () => stream.isOver)
    const { id } = await platform.create()
    const next = await follow(`?after=${start}`)
    await next.event('capsule.created', id)
  })

  it('holds nothing for who does not read, and goes on when they do', async () => {
    const { hostname, port } = new URL(platform.url)
    const socket = connect(Number(port), hostname)
    socket.write(`GET /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: ${platform.key}\r\n\r\n`)
    await once(socket, 'data')
    socket.pause()
    const teamId = await teamOf()
    for (let n = 0; n < 12; n++) await addEvents(teamId, 900)
    const { id } = await platform.create()
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    socket.resume()
    // Either all of it, or word that a new list is due.
    const isDone = () => text.includes(id) || text.includes('event: relist')
    await waitFor(async () => (isDone() ? true : undefined), { timeoutMs: 20_000, what: 'the rest' })
    socket.destroy()
  })
})

async function statusOf(headers: Record<string, string>): Promise<number> {
  const response = await fetch(`${platform.url}/v1/events`, { headers: { 'x-api-key': platform.key, ...headers } })
  await response.body?.cancel()
  return response.status
}

describe('events', () => {
  it('are forgotten after a day', async () => {
    const teamId = await teamOf()
    await addEvents(teamId, 3, '25 h')
    const countOld = async () => {
      const { rows } = await sql<{
        n: number
      }>`SELECT count(*) AS n FROM events WHERE at < now() - interval '24 h'`.execute(db)
      return rows[0]?.n
    }
    await waitFor(async () => ((await countOld()) === 0 ? true : undefined), { timeoutMs: 20_000, what: 'a sweep' })
    const { rows } = await sql<{ n: number }>`SELECT count(*) AS n FROM events`.execute(db)
    expect(rows[0]?.n).toBeGreaterThan(0)
  })
})
