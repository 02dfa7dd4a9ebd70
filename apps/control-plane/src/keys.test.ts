import type { ApiKey, ErrorBody, NewApiKey } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { newApiKey, storedForm } from './domain/accounts/index.js'
import { addKey } from './store/api-keys.js'
import { type Db, openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { openRaw } from './testing/raw-websocket.js'

let platform: Platform
let replica: ControlPlane
let db: Db

beforeAll(async () => {
  platform = await startPlatform()
  replica = await startReplica(platform)
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const withKey = (key: string) => ({ 'x-api-key': key })

async function make(body: object = {}, maker = platform.key): Promise<NewApiKey> {
  return await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', body, withKey(maker)), 201)
}

async function list(): Promise<ApiKey[]> {
  return await json<ApiKey[]>(await platform.call('GET', '/v1/api-keys'), 200)
}

const revoke = (id: string, key = platform.key) =>
  platform.call('DELETE', `/v1/api-keys/${id}`, undefined, withKey(key))

async function refusal(response: Response): Promise<[number, string, string]> {
  const { error } = await json<ErrorBody>(response, response.status)
  return [response.status, error.code, error.message]
}

async function statusOf(key: string, url = platform.url): Promise<number> {
  const response = await fetch(`${url}/v1/capsules`, { headers: withKey(key) })
  await response.arrayBuffer()
  return response.status
}

describe('a key', () => {
  it('is shown once, and afterwards by its beginning only', async () => {
    const made = await make({ name: 'ci', scopes: ['capsules'] })
    expect(made).toMatchObject({ name: 'ci', scopes: ['capsules'], key: expect.stringMatching(/^wrn_[0-9a-f]{32}$/) })
    expect(made.key.startsWith(made.key_prefix)).toBe(true)
    const listed = await list()
    expect(listed[0]).toMatchObject({ id: made.id, key_prefix: made.key_prefix, scopes: ['capsules'] })
    expect(listed.at(-1)).toMatchObject({
      name: 'First key',
      scopes: ['read', 'capsules', 'templates', 'admin', 'platform', 'monitor'],
    })
    expect(made.created_by).toBe(listed.at(-1)?.id)
    expect(JSON.stringify(listed)).not.toContain(made.key)
    const stored = await db.selectFrom('api_keys').selectAll().execute()
    expect(JSON.stringify(stored)).not.toContain(made.key)
  })

  it('has by default a name, the scopes of its maker, no end, and can have the form that other clients want', async () => {
    const response = await fetch(`${platform.url}/v1/api-keys`, { method: 'POST', headers: withKey(platform.key) })
    const plain = await json<NewApiKey>(response, 201)
    expect(plain).toMatchObject({ name: 'Unnamed API Key', scopes: ['read', 'capsules', 'templates', 'admin'] })
    expect(plain.expires_at).toBeUndefined()
    const { key } = await make({ format: 'e2b' })
    expect(key).toMatch(/^e2b_[0-9a-f]{40}$/)
    expect(await statusOf(key)).toBe(200)
  })

  it('says when it was used last, written now and then, not with each request', async () => {
    const { id, key } = await make()
    const usedAt = async () => (await list()).find((each) => each.id === id)?.last_used
    expect(await usedAt()).toBeUndefined()
    expect(await statusOf(key)).toBe(200)
    await expect.poll(usedAt).toMatch(/Z$/)
  })

  it('cannot make one that may do more, or lives longer', async () => {
    const admin = await make({ scopes: ['admin', 'capsules'], expires_in_sec: 3600 })
    const create = (body: object) => platform.call('POST', '/v1/api-keys', body, withKey(admin.key))
    expect(await refusal(await create({ scopes: ['templates', 'read'] }))).toEqual([
      403,
      'forbidden',
      expect.stringContaining('scope templates'),
    ])
    expect(await refusal(await create({ expires_in_sec: 7200 }))).toEqual([
      403,
      'forbidden',
      expect.stringContaining(admin.expires_at ?? 'its end'),
    ])
    const less = await make({ scopes: ['read'] }, admin.key)
    expect(less).toMatchObject({ scopes: ['read'], expires_at: admin.expires_at })
    expect(await refusal(await platform.call('POST', '/v1/api-keys', {}, withKey(less.key)))).toEqual([
      403,
      'forbidden',
      'This key may not do that: it needs the scope admin.',
    ])
  })

  it('is refused when it has expired, also by who knew it before', async () => {
    const { id, key } = await make({ expires_in_sec: 60 })
    expect(await statusOf(key)).toBe(200)
    await db
      .updateTable('api_keys')
      .set({ expires_at: new Date(Date.now() - 1) })
      .where('id', '=', id)
      .execute()
    await expect.poll(() => statusOf(key)).toBe(401)
    const response = await platform.call('GET', '/v1/capsules', undefined, withKey(key))
    expect(await refusal(response)).toEqual([401, 'unauthorized', 'The API key has expired.'])
    expect((await list()).map((each) => each.id)).toContain(id)
  })

  it('that has expired takes no place, and is listed for a month only', async () => {
    const teamId = await createTeam(db, 'Short lives')
    const key = newApiKey()
    const scopes = ['read', 'capsules', 'templates', 'admin'] as const
    await addKey(db, { teamId, name: 'lasting', scopes, ...storedForm(key) })
    await sql`INSERT INTO api_keys (id, team_id, name, prefix, key_hash, scopes, expires_at)
      SELECT 'key-' || lpad(n::text, 25, '0'), ${teamId}, 'run ' || n, 'wrn_', 'hash ' || n, '{read}',
        now() - (CASE WHEN n <= 1000 THEN 31 ELSE 29 END) * interval '1 day'
      FROM generate_series(1, 1002) AS n`.execute(db)
    await make({}, key)
    const listed = await json<ApiKey[]>(await platform.call('GET', '/v1/api-keys', undefined, withKey(key)), 200)
    expect(listed.map(({ name }) => name).sort()).toEqual(['Unnamed API Key', 'lasting', 'run 1001', 'run 1002'])
  })

  it('is on one page, also when it was made in the same moment as others', async () => {
    const teamId = await createTeam(db, 'Many keys')
    const key = newApiKey()
    const scopes = ['admin'] as const
    await addKey(db, { teamId, name: 'first', scopes, ...storedForm(key) })
    await sql`INSERT INTO api_keys (id, team_id, name, prefix, key_hash, scopes)
      SELECT 'key-' || lpad((5000 + n)::text, 25, '0'), ${teamId}, 'n' || n, 'wrn_', 'other hash ' || n, '{read}'
      FROM generate_series(1, 250) AS n`.execute(db)
    const all = await json<ApiKey[]>(await platform.call('GET', '/v1/api-keys', undefined, withKey(key)), 200)
    expect(all).toHaveLength(251)
    const ids: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const query: string = cursor === '' ? '' : `&cursor=${cursor}`
      const page = await platform.call('GET', `/v1/api-keys?limit=100${query}`, undefined, withKey(key))
      ids.push(...(await json<ApiKey[]>(page, 200)).map(({ id }) => id))
      cursor = page.headers.get('x-next-token')
      // A page's place outlives its key.
      await db
        .updateTable('api_keys')
        .set({ revoked_at: new Date() })
        .where('id', '=', ids.at(-1) ?? '')
        .where('name', '!=', 'first')
        .execute()
    }
    expect(ids).toEqual(all.map(({ id }) => id))
    for (const query of ['limit=0', 'limit=1001', 'cursor=x', `cursor=${Buffer.from('1:%').toString('base64url')}`]) {
      expect((await platform.call('GET', `/v1/api-keys?${query}`)).status).toBe(400)
    }
  })

  it('of nonsense is refused by the field', async () => {
    for (const [body, field] of [
      [{ scopes: [] }, 'scopes'],
      [{ scopes: ['root'] }, 'scopes'],
      [{ expires_in_sec: 1 }, 'expires_in_sec'],
      [{ format: 'aws' }, 'format'],
      [{ nmae: 'x' }, 'nmae'],
    ] as const) {
      expect(await refusal(await platform.call('POST', '/v1/api-keys', body))).toEqual([
        400,
        'invalid_request',
        expect.stringContaining(field),
      ])
    }
    expect((await revoke('%00')).status).toBe(400)
  })
})

describe('revoking', () => {
  it('counts at once here, and on another control plane as soon as it hears of it', async () => {
    const { id, key } = await make()
    expect([await statusOf(key), await statusOf(key, replica.url)]).toEqual([200, 200])
    expect((await revoke(id)).status).toBe(204)
    expect(await statusOf(key)).toBe(401)
    await expect.poll(() => statusOf(key, replica.url)).toBe(401)
    expect((await revoke(id)).status).toBe(204)
    expect((await list()).map((each) => each.id)).not.toContain(id)
  })

  it('ends the sockets that the key has opened', async () => {
    const capsule = await platform.create()
    const { id, key } = await make({ scopes: ['capsules'] })
    const byHeader = platform.open(`/v1/capsules/${capsule.id}/pty`, { key })
    await byHeader.send({ type: 'start', cmd: '/bin/sh', cols: 80, rows: 24 })
    const byMessage = platform.open(`/v1/capsules/${capsule.id}/pty`, { key: undefined })
    await byMessage.send({ type: 'auth', api_key: key })
    await byMessage.send({ type: 'start', cmd: '/bin/sh', cols: 80, rows: 24 })
    const mine = platform.open(`/v1/capsules/${capsule.id}/pty`)
    await mine.send({ type: 'start', cmd: '/bin/sh', cols: 80, rows: 24 })
    for (const socket of [byHeader, byMessage, mine]) await socket.until('started')
    await revoke(id)
    for (const socket of [byHeader, byMessage]) {
      expect((await socket.until('error')).at(-1)).toMatchObject({ code: 'unauthorized', fatal: true })
      await expect.poll(() => socket.closed?.code).toBe(1008)
    }
    expect(mine.closed).toBeUndefined()
    mine.raw.close()
  })

  it('also ends those whose client ignores the close, and hears nothing more from them', async () => {
    const { id: capsuleId } = await platform.create()
    const { id, key } = await make({ scopes: ['capsules'] })
    await using client = await openRaw(`${platform.url}/v1/capsules/${capsuleId}/exec/stream`, withKey(key))
    await revoke(id)
    await client.received('unauthorized')
    client.send({ type: 'start', cmd: 'sleep', args: ['60'], tag: 'stolen' })
    await client.closed
    const running = await platform.call('GET', `/v1/capsules/${capsuleId}/processes`)
    expect(await running.text()).not.toContain('stolen')
  }, 20_000)

  it('leaves the last key that may do everything for ever', async () => {
    const teamId = await createTeam(db, 'Careful')
    const key = newApiKey()
    const scopes = ['read', 'capsules', 'templates', 'admin'] as const
    const first = await addKey(db, { teamId, name: 'first', scopes, ...storedForm(key) })
    await make({ expires_in_sec: 3600 }, key)
    const other = await make({ scopes: ['admin'] }, key)
    const last = first?.id ?? ''
    expect(await refusal(await revoke(last, key))).toEqual([409, 'conflict', expect.stringContaining('last key')])
    expect((await revoke(other.id, key)).status).toBe(204)
    const second = await make({}, key)
    const both = await Promise.all([revoke(last, second.key), revoke(second.id, key)])
    expect(both.map(({ status }) => status).sort()).toContain(409)
  })

  it('is for the team of the key: those of others are not there', async () => {
    const teamId = await createTeam(db, 'Strangers')
    const strange = newApiKey('e2b')
    const scopes = ['read', 'admin'] as const
    const row = await addKey(db, { teamId, name: 'strange', scopes, ...storedForm(strange) })
    const { id } = await make()
    for (const unknown of [await revoke(id, strange), await revoke(row?.id ?? ''), await revoke('key-none')]) {
      expect(await refusal(unknown)).toEqual([404, 'api_key_not_found', expect.any(String)])
    }
    const seen = await json<ApiKey[]>(await platform.call('GET', '/v1/api-keys', undefined, withKey(strange)), 200)
    expect(seen.map((each) => each.name)).toEqual(['strange'])
  })
})
