import type { Logger } from '@wrenn/base'
import type { AuditPage, NewApiKey } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newApiKey, storedForm } from '../domain/accounts/index.js'
import { addKey } from '../store/api-keys.js'
import { type Db, openDatabase } from '../store/database.js'
import { createTeam } from '../store/teams.js'
import { json, type Platform, startPlatform, startReplica } from '../testing/harness.js'

interface Secret {
  readonly secretID: string
  readonly name: string
  readonly currentVersion: number
  readonly metadata: Readonly<Record<string, string>>
  readonly createdAt: string
  readonly updatedAt: string
}

interface E2bError {
  readonly code: number
  readonly message: string
}

const [KEY, NEXT_KEY] = ['ab'.repeat(32), 'cd'.repeat(32)]
const lines: string[] = []
let platform: Platform
let db: Db

beforeAll(async () => {
  const write = (fields: Readonly<Record<string, unknown>>, event: string) =>
    void lines.push(`${event} ${JSON.stringify(fields)}`)
  const logger: Logger = { debug: write, info: write, warn: write, error: write, child: () => logger }
  platform = await startPlatform({ env: { WRENN_ENCRYPTION_KEY: KEY }, logger })
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const make = async (name: string, value: string, more: object = {}): Promise<Secret> =>
  await json(await platform.call('POST', '/secrets', { name, value, ...more }), 201)
const at = (idOrName: string): string => `/secrets/${encodeURIComponent(idOrName)}`
const replace = async (idOrName: string, value: string, more: object = {}): Promise<Secret> =>
  await json(await platform.call('POST', at(idOrName), { value, ...more }), 200)
const refused = async (method: string, path: string, status: number, body?: object): Promise<string> => {
  const error = await json<E2bError>(await platform.call(method, path, body), status)
  expect(error.code).toBe(status)
  return error.message
}
const networkOf = (headers: Readonly<Record<string, string>>, host = 'api.example') => ({
  rules: { [host]: [{ transform: { headers } }] },
})
const sandbox = async (network: object): Promise<string> =>
  (
    await json<{ sandboxID: string }>(
      await platform.call('POST', '/v2/sandboxes', { templateID: 'base', network, timeout: 3_000 }),
      201,
    )
  ).sandboxID
/** What the host sets. */
const headersAtHost = (id: string, host = 'api.example') =>
  platform.host.capsules.get(id)?.request?.egress?.rules.find((rule) => rule.host === host)?.headers

describe('a secret', () => {
  it('has an id, versions and metadata, is found by its id and by its name in any case, and shows no value', async () => {
    const made = await make('OpenAI-Key', 'sk-first', { metadata: { owner: 'ada' } })
    expect(made).toEqual({
      ...{ secretID: expect.stringMatching(/^sec_[0-9a-z]{25}$/), name: 'openai-key', currentVersion: 1 },
      ...{ metadata: { owner: 'ada' }, createdAt: expect.any(String), updatedAt: expect.any(String) },
    })
    for (const by of [made.secretID, 'openai-key', 'OPENAI-key']) {
      expect(await json<Secret>(await platform.call('GET', at(by)), 200)).toEqual(made)
    }
    expect(await replace('openai-key', 'sk-second')).toMatchObject({ currentVersion: 2, metadata: { owner: 'ada' } })
    expect(await replace(made.secretID, 'sk-third', { metadata: {} })).toMatchObject({
      currentVersion: 3,
      metadata: {},
    })
    expect(await refused('POST', '/secrets', 409, { name: 'OPENAI-KEY', value: 'x' })).toContain('openai-key')
    expect((await platform.call('DELETE', at(made.secretID))).status).toBe(204)
    for (const [method, body] of [['GET'], ['DELETE'], ['POST', { value: 'x' }]] as const) {
      expect(await refused(method, at('openai-key'), 404, body)).toBe('There is no secret openai-key.')
    }
    expect(await make('openai-key', 'again')).toMatchObject({ currentVersion: 1 })
  })

  it('is listed by name, some at a time', async () => {
    for (const name of ['list b', 'list-a', 'list/c']) await make(name, 'v')
    const names: string[] = []
    for (let token = ''; ; ) {
      const page = await platform.call('GET', `/secrets?limit=2${token && `&nextToken=${token}`}`)
      token = page.headers.get('x-next-token') ?? ''
      const items = await json<Secret[]>(page, 200)
      expect(items.length).toBeLessThanOrEqual(2)
      names.push(...items.map(({ name }) => name))
      if (token === '') break
    }
    expect(names).toEqual([...names].sort())
    expect(names.filter((name) => name.startsWith('list'))).toEqual(['list b', 'list-a', 'list/c'])
    for (const query of ['limit=0', 'limit=101', 'nextToken=%00', 'nextToken=AAAA']) {
      expect((await platform.call('GET', `/secrets?${query}`)).status, query).toBe(400)
    }
  })

  it('is refused, and not repeated, where a header could not have it, or a rule not its name', async () => {
    const value = 'hunter2'
    for (const [field, body] of [
      ...['', ' a', 'a ', '{a}', 'a\nb', 'é', 'x'.repeat(129), 'sec_a', `sec-${'0'.repeat(25)}`].map(
        (name) => ['name', { name, value }] as const,
      ),
      ...['', ` ${value}`, `${value}\n`, `${value}é`, value.repeat(700)].map(
        (bad) => ['value', { name: 'refused', value: bad }] as const,
      ),
      ...[{ a: 'é'.repeat(513) }, { ['é'.repeat(65)]: 'a' }].map(
        (metadata) => ['metadata', { name: 'refused', value, metadata }] as const,
      ),
      ...[33, 9].map((count) => {
        const entries = Array.from({ length: count }, (_, index) => [`${index}`, 'x'.repeat(count === 9 ? 1_000 : 1)])
        return ['metadata', { name: 'refused', value, metadata: Object.fromEntries(entries) }] as const
      }),
    ]) {
      const message = await refused('POST', '/secrets', 400, body)
      expect([body, message.includes(field), message.includes(value)]).toEqual([body, true, false])
    }
    expect((await platform.call('GET', at('refused'))).status).toBe(404)
  })

  it('is of its team alone, for keys that may read or write capsules', async () => {
    const { secretID } = await make('of-team', 'mine')
    const stranger = newApiKey()
    await addKey(db, {
      ...{ teamId: await createTeam(db, 'Strangers'), name: 'stranger', scopes: ['read', 'capsules'] },
      ...storedForm(stranger),
    })
    const { key: reader } = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { scopes: ['read'] }),
      201,
    )
    const value = { value: 'x' }
    for (const [method, path, body, foreign, read] of [
      ['GET', at('of-team'), undefined, 404, 200],
      ['GET', at(secretID), undefined, 404, 200],
      ['GET', '/secrets', undefined, 200, 200],
      ['POST', '/secrets', { name: 'of-team', ...value }, 201, 403],
      ['POST', at(secretID), value, 404, 403],
      ['DELETE', at(secretID), undefined, 404, 403],
    ] as const) {
      const ask = async (key: string) => (await platform.call(method, path, body, { 'x-api-key': key })).status
      expect([method, path, await ask(stranger), await ask(reader)]).toEqual([method, path, foreign, read])
    }
    expect(await json<Secret>(await platform.call('GET', at(secretID)), 200)).toMatchObject({ currentVersion: 1 })
  })
})

describe('a rule that refers to a secret', () => {
  const reference = '${e2b.secrets.'
  const refersTo = (name: string): string => `Bearer ${reference}${name}}`

  it('sets its value, the next one when there is one, and no header when it is gone', async () => {
    await make('rotated', 'r-one')
    const id = await sandbox(networkOf({ Authorization: refersTo('Rotated'), 'x-team': 'blue' }))
    expect(headersAtHost(id)).toEqual({ authorization: 'Bearer r-one', 'x-team': 'blue' })
    const info = await json<{ network: unknown }>(await platform.call('GET', `/sandboxes/${id}`), 200)
    expect(info.network).toMatchObject(networkOf({ authorization: '', 'x-team': '' }))
    await replace('rotated', 'r-two')
    await expect.poll(() => headersAtHost(id)?.authorization).toBe('Bearer r-two')
    expect((await platform.call('DELETE', at('rotated'))).status).toBe(204)
    await expect.poll(() => headersAtHost(id)).toEqual({ 'x-team': 'blue' })
    await make('rotated', 'r-three')
    await expect.poll(() => headersAtHost(id)?.authorization).toBe('Bearer r-three')
    const left = db.selectFrom('secrets').select('id').where('deleted_at', 'is not', null)
    await expect.poll(async () => await left.execute()).toEqual([])
  })

  it('is a copy’s too, and one of a sandbox that sleeps has the newest value before it wakes', async () => {
    await make('shared', 's-one')
    const id = await sandbox(networkOf({ authorization: refersTo('shared') }))
    const copies = await json<{ sandbox: { sandboxID: string } }[]>(
      await platform.call('POST', `/sandboxes/${id}/fork`, { count: 1 }),
      201,
    )
    const copy = copies[0]?.sandbox.sandboxID ?? ''
    expect(headersAtHost(copy)).toEqual({ authorization: 'Bearer s-one' })
    expect((await platform.call('POST', `/sandboxes/${id}/pause`, {})).status).toBe(204)
    await replace('shared', 's-two')
    expect((await platform.call('POST', `/sandboxes/${id}/connect`, { timeout: 3_000 })).status).toBe(201)
    expect(headersAtHost(id)).toEqual({ authorization: 'Bearer s-two' })
    await expect.poll(() => headersAtHost(copy)).toEqual({ authorization: 'Bearer s-two' })
  })

  it('comes and goes with a change of the network, by both doors', async () => {
    await make('late', 'l-one')
    const id = await sandbox({})
    const put = async (network: object) => (await platform.call('PUT', `/sandboxes/${id}/network`, network)).status
    expect(await put(networkOf({ 'x-key': `${reference}late}` }))).toBe(204)
    expect(headersAtHost(id)).toEqual({ 'x-key': 'l-one' })
    expect(await put({})).toBe(204)
    expect(headersAtHost(id)).toBeUndefined()
    const rules = [{ host: 'api.example', headers: { 'x-key': `a \${secrets.late} b` } }]
    await json(await platform.call('PUT', `/v1/capsules/${id}/egress?wait_sec=20`, { rules }), 200)
    expect(headersAtHost(id)).toEqual({ 'x-key': 'a l-one b' })
    const row = db.selectFrom('capsules').select('secret_names').where('id', '=', id)
    expect(await row.executeTakeFirst()).toEqual({ secret_names: ['late'] })
    // What it refers to already may be gone, and keeps nobody from changing something else.
    expect((await platform.call('DELETE', at('late'))).status).toBe(204)
    const kept = { rules: [{ host: 'api.example', headers: ['x-key'] }], deny: ['198.51.100.7'] }
    await json(await platform.call('PUT', `/v1/capsules/${id}/egress?wait_sec=20`, kept), 200)
    expect(headersAtHost(id)).toBeUndefined()
    await make('late', 'l-two')
    await expect.poll(() => headersAtHost(id)).toEqual({ 'x-key': 'a l-two b' })
  })

  it('is refused where there is no such secret, it could become too long, or a token of iam is wanted', async () => {
    await make('long', 'x'.repeat(4_096))
    const refusal = async (network: object, status = 400) =>
      await refused('POST', '/v2/sandboxes', status, { templateID: 'base', network })
    expect(await refusal(networkOf({ a: refersTo('nobody') }))).toContain('there is no secret nobody')
    const twice = `${reference}long}`.repeat(2)
    expect(headersAtHost(await sandbox(networkOf({ a: twice })))?.a).toHaveLength(8_192)
    expect(await refusal(networkOf({ a: `${twice}.` }))).toContain('may become longer than 8192')
    const many = Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`a${index}`, `${reference}long}`]))
    expect(await refusal(networkOf(many))).toContain('may become')
    const iam = `${reference}long}${'${e2b.'}identity.tokens.aws}`
    expect(await refusal(networkOf({ a: iam }), 501)).toContain('iam')
  })

  it('has what changed while no process could tell of it', async () => {
    await make('missed', 'm-one')
    const id = await sandbox(networkOf({ a: `${reference}missed}` }))
    await replace('missed', 'm-two')
    await expect.poll(() => headersAtHost(id)).toEqual({ a: 'm-two' })
    // As a process leaves it that ended between the two transactions.
    const { value } = await db
      .selectFrom('secrets')
      .select('value')
      .where('name', '=', 'missed')
      .executeTakeFirstOrThrow()
    await replace('missed', 'm-three')
    await expect.poll(() => headersAtHost(id)).toEqual({ a: 'm-three' })
    await db
      .updateTable('secrets')
      .set((eb) => ({ value, version: eb('version', '+', 1) }))
      .where('name', '=', 'missed')
      .execute()
    await expect.poll(() => headersAtHost(id)).toEqual({ a: 'm-two' })
  })
})

describe('the value of a secret', () => {
  it('is encrypted for its place, anew by a new key, and in no other row, log or entry of the trail', async () => {
    const value = 'val-9f3c1d7e'
    const { secretID } = await make('hidden', value)
    await replace('hidden', `${value}-2`)
    const id = await sandbox(networkOf({ a: `\${e2b.secrets.hidden}` }))
    expect(headersAtHost(id)).toEqual({ a: `${value}-2` })
    const entries = await json<AuditPage>(await platform.call('GET', '/v1/audit-logs?resource_type=secret'), 200)
    expect(entries.items.filter(({ details }) => details.name === 'hidden').map(({ action }) => action)).toEqual([
      'secret.update',
      'secret.create',
    ])
    const { rows: tables } = await sql<{ name: string }>`SELECT quote_ident(tablename) AS name FROM pg_tables
      WHERE schemaname = current_schema()`.execute(db)
    const texts = tables.map(async ({ name }) => (await sql`SELECT t::text FROM ${sql.raw(name)} t`.execute(db)).rows)
    const kept = JSON.stringify(await Promise.all(texts))
    expect([kept.includes('secret.update'), kept.includes(value)]).toEqual([true, false])
    expect([lines.length > 0, lines.join('\n').includes(value)]).toEqual([true, false])

    const sealed = async (): Promise<string> =>
      (
        await db
          .selectFrom('secrets')
          .select('value')
          .where('id', '=', secretID.replace('_', '-'))
          .executeTakeFirstOrThrow()
      ).value
    const before = await sealed()
    {
      await using _newer = await startReplica(platform, { WRENN_ENCRYPTION_KEY: `${NEXT_KEY},${KEY}` })
      await expect.poll(async () => (await sealed()).split('.')[1]).not.toBe(before.split('.')[1])
    }
  })

  it('is not taken by a platform without a key', async () => {
    await using without = await startPlatform()
    const error = await json<E2bError>(await without.call('POST', '/secrets', { name: 'a', value: 'b' }), 501)
    expect(error.message).toContain('WRENN_ENCRYPTION_KEY')
    expect(await json<Secret[]>(await without.call('GET', '/secrets'), 200)).toEqual([])
  })
})
