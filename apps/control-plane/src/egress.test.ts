import { AppError, type Logger, waitFor } from '@wrenn/base'
import type { AuditPage, Capsule, EgressStatus, ErrorBody, ForkResult } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const narrow = { internet: false, allow: ['203.0.113.0/24'], deny: [] }
const away = new AppError('host_unavailable', 'The host agent is starting.')

let postgres: TestPostgres
let platform: Platform

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
}, 30_000)
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
})

const path = ({ id }: Capsule): string => `/v1/capsules/${id}/egress`
const get = async (capsule: Capsule): Promise<EgressStatus> =>
  await json(await platform.call('GET', path(capsule)), 200)
const put = async (capsule: Capsule, policy: object, status = 200): Promise<EgressStatus> =>
  await json(await platform.call('PUT', path(capsule), policy), status)
const untilInForce = async (capsule: Capsule): Promise<EgressStatus> => {
  const probe = async () => {
    const egress = await get(capsule)
    return egress.in_force ? egress : undefined
  }
  return await waitFor(probe, { timeoutMs: 20_000, what: 'the policy to be in force' })
}
/** What the host has. */
const atHost = ({ id }: Capsule) => {
  const { internet, allow, deny } = platform.host.capsules.get(id)?.request?.egress ?? {}
  return { internet, allow, deny }
}

describe('what a capsule may reach', () => {
  it('is the internet where nothing was said, and is replaced as a whole', async () => {
    const capsule = await platform.create()
    expect(await get(capsule)).toEqual({
      policy: { internet: true, allow: [], deny: [] },
      in_force: true,
      refused: [],
    })
    expect(await put(capsule, { internet: false, allow: ['203.0.113.0/24'] })).toEqual({
      policy: narrow,
      in_force: true,
    })
    expect(atHost(capsule)).toEqual(narrow)
    expect((await platform.get(capsule.id)).egress).toEqual(narrow)
    const denying = await put(capsule, { deny: ['198.51.100.7'] })
    expect(denying.policy).toEqual({ internet: true, allow: [], deny: ['198.51.100.7'] })
    expect(atHost(capsule)).toEqual(denying.policy)
  })

  it('has one entry in the audit trail for each change, and none for what was so already', async () => {
    const capsule = await platform.create()
    await put(capsule, narrow)
    await put(capsule, narrow)
    const entries = await json<AuditPage>(await platform.call('GET', '/v1/audit-logs?action=capsule.egress'), 200)
    expect(entries.items).toMatchObject([
      { action: 'capsule.egress', resource_id: capsule.id, details: { internet: 'false', allow: '203.0.113.0/24' } },
    ])
  })

  it.each([
    ['a name of one label', { allow: ['com'] }, 'com'],
    ['a wildcard for everything', { allow: ['*'] }, 'a wildcard stands alone before'],
    ['a wildcard for a whole top level', { deny: ['*.com'] }, '*.com'],
    ['a name in another alphabet', { allow: ['bücher.example'] }, 'xn--'],
    ['a name with a port', { deny: ['example.org:443'] }, 'example.org:443'],
    ['a network of too many bits', { deny: ['10.0.0.0/33'] }, '10.0.0.0/33'],
    ['IPv6', { allow: ['2001:db8::/32'] }, '2001:db8::/32'],
    ['what nothing can open', { allow: ['169.254.169.254'] }, '169.254.0.0/16'],
  ])('is refused with %s, and stays', async (_what, policy, named) => {
    const capsule = await platform.create()
    await put(capsule, narrow)
    const refusal = await json<ErrorBody>(await platform.call('PUT', path(capsule), policy), 400)
    expect(refusal.error).toMatchObject({ code: 'invalid_request', message: expect.stringContaining(named) })
    expect((await get(capsule)).policy).toEqual(narrow)
    expect((await platform.call('POST', '/v1/capsules', { egress: policy })).status).toBe(400)
  })

  it('takes domains in any form, and keeps them in one', async () => {
    const capsule = await platform.create()
    const kept = { internet: false, allow: ['example.org', '*.example.net', '203.0.113.0/24'], deny: [] }
    const wish = { internet: false, allow: ['Example.ORG.', '*.example.NET', '203.0.113.0/24'] }
    expect((await put(capsule, wish)).policy).toEqual(kept)
    expect(atHost(capsule)).toEqual(kept)
    const made = await json<Capsule>(await platform.call('POST', '/v1/capsules', { egress: wish }), 201)
    expect((await get(made)).policy).toEqual(kept)
  })

  it('says which entry is wrong by its place', async () => {
    const capsule = await platform.create()
    const wish = { allow: ['example.org', 'example..org'] }
    const refusal = await json<ErrorBody>(await platform.call('PUT', path(capsule), wish), 400)
    expect(refusal.error.details).toEqual({ field: 'egress.allow', index: 1, entry: 'example..org' })
  })

  it('tells what was refused by name, and nothing of it while the capsule sleeps', async () => {
    const capsule = await platform.create()
    const lastAtMs = 1_700_000_000_000n
    const atFake = platform.host.capsules.get(capsule.id)
    atFake?.refusals.push(
      {
        name: 'bad.example',
        port: 443,
        address: '203.0.113.9',
        reason: 'denied',
        rule: '*.example',
        count: 3n,
        lastAtMs,
      },
      { name: 'new.example', port: 53, reason: 'of a later version', count: 1n, lastAtMs },
    )
    const last_at = '2023-11-14T22:13:20.000Z'
    const told = { name: 'bad.example', address: '203.0.113.9', port: 443, reason: 'denied', rule: '*.example' }
    expect((await get(capsule)).refused).toEqual([{ ...told, count: 3, last_at }])
    await json(await platform.call('POST', `/v1/capsules/${capsule.id}/pause?wait_sec=30`), 200)
    expect((await get(capsule)).refused).toEqual([])
  })

  it('learns, also in a pause, and proposes what was used', async () => {
    const capsule = await platform.create()
    expect(await put(capsule, { learn: true })).toMatchObject({ policy: { internet: true, learn: true } })
    expect(platform.host.capsules.get(capsule.id)?.request?.egress?.learn).toBe(true)
    const used = { protocol: 'tcp', name: 'pypi.org', namedBy: 'connection', address: '203.0.113.9', port: 443 }
    platform.host.capsules.get(capsule.id)?.destinations.push({ ...used, count: 3n })
    const proposal = { internet: false, allow: ['pypi.org'], deny: [] }
    const { namedBy: named_by, ...told } = used
    const learned = { destinations: [{ ...told, named_by, count: 3 }], complete: true, proposal }
    expect((await get(capsule)).learned).toEqual(learned)
    await json(await platform.call('POST', `/v1/capsules/${capsule.id}/pause?wait_sec=30`), 200)
    expect((await get(capsule)).learned).toEqual(learned)
    expect((await put(capsule, proposal)).policy).toEqual(proposal)
    expect((await get(capsule)).learned).toBeUndefined()
    const entries = await json<AuditPage>(await platform.call('GET', '/v1/audit-logs?action=capsule.egress'), 200)
    expect(entries.items.map(({ details }) => details.learn)).toEqual([undefined, 'true'])
  })

  it('is of no capsule that has ended, and of none of another team', async () => {
    const capsule = await platform.create()
    expect((await platform.call('DELETE', `/v1/capsules/${capsule.id}`)).status).toBe(204)
    expect((await json<ErrorBody>(await platform.call('PUT', path(capsule), narrow), 409)).error.code).toBe(
      'invalid_state',
    )
    const unknown = `/v1/capsules/cl-${'0'.repeat(25)}/egress`
    expect((await platform.call('PUT', unknown, narrow)).status).toBe(404)
    expect((await platform.call('GET', unknown)).status).toBe(404)
  })

  it('is recorded while the host is away, and carried there when it answers', async () => {
    const capsule = await platform.create()
    platform.host.failNext('egress', away)
    expect(await put(capsule, narrow, 202)).toEqual({ policy: narrow, in_force: false })
    expect((await untilInForce(capsule)).policy).toEqual(narrow)
    expect(atHost(capsule)).toEqual(narrow)
  })

  it('is not lost with an answer that is', async () => {
    const capsule = await platform.create()
    platform.host.failNext('egress', away, 'after')
    // The host's own report may come before the answer.
    expect([200, 202]).toContain((await platform.call('PUT', path(capsule), narrow)).status)
    expect((await untilInForce(capsule)).policy).toEqual(narrow)
  })

  it('changes while the capsule is being made', async () => {
    const release = platform.host.holdCreates()
    const capsule = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0', {}), 201)
    const changed = platform.call('PUT', `${path(capsule)}?wait_sec=0.1`, narrow)
    expect((await changed).status).toBe(202)
    release()
    await platform.until(capsule.id, 'running')
    await untilInForce(capsule)
    expect(atHost(capsule)).toEqual(narrow)
  })

  describe('when the host did not hear of a change', () => {
    /** Enough for the carrying of each tick to fail while the test looks. */
    const deaf = () => {
      for (let attempt = 0; attempt < 20; attempt++) platform.host.failNext('egress', away)
    }

    it('is carried there before a capsule goes on', async () => {
      const capsule = await platform.create()
      await json(await platform.call('POST', `/v1/capsules/${capsule.id}/pause?wait_sec=30`), 200)
      deaf()
      await put(capsule, narrow, 202)
      await json(await platform.call('POST', `/v1/capsules/${capsule.id}/resume?wait_sec=30`), 200)
      expect(atHost(capsule)).toEqual(narrow)
      expect((await get(capsule)).in_force).toBe(true)
    })

    it('is carried there before a capsule goes back', async () => {
      const capsule = await platform.create()
      const made = await platform.call('POST', `/v1/capsules/${capsule.id}/checkpoints?wait_sec=30`, {})
      const { id } = await json<{ id: string }>(made, 201)
      deaf()
      await put(capsule, narrow, 202)
      const back = `/v1/capsules/${capsule.id}/checkpoints/${id}/rollback?wait_sec=30`
      await json(await platform.call('POST', back), 200)
      expect(atHost(capsule)).toEqual(narrow)
    })

    it('is a capsule’s before it counts as running', async () => {
      const release = platform.host.holdCreates()
      const capsule = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0', {}), 201)
      await put(capsule, narrow, 202)
      release()
      await platform.until(capsule.id, 'running')
      expect(atHost(capsule)).toEqual(narrow)
    })
  })

  it('is as the database says also when that is older than the host', async () => {
    const capsule = await platform.create()
    await put(capsule, { deny: ['198.51.100.7'] })
    await put(capsule, narrow)
    await put(capsule, { deny: ['198.51.100.8'] })
    await using db = {
      rows: openDatabase({ url: platform.databaseUrl }),
      [Symbol.asyncDispose]: () => db.rows.destroy(),
    }
    const older = { egress: JSON.stringify(narrow), egress_revision: 1, egress_in_force: 1 }
    const restore = () => db.rows.updateTable('capsules').set(older).where('id', '=', capsule.id).execute()
    await restore()
    const wider = { ...narrow, allow: ['203.0.113.0/24', '192.0.2.1'] }
    expect(await put(capsule, wider)).toEqual({ policy: wider, in_force: true })
    expect(atHost(capsule)).toEqual(wider)
    // Whoever asks at the same time raises it once, and each is told the truth.
    for (let round = 0; round < 10; round++) {
      await restore()
      const answers = await Promise.all(Array.from({ length: 4 }, () => put(capsule, wider)))
      expect(answers).toEqual(answers.map(() => ({ policy: wider, in_force: true })))
    }
    expect(atHost(capsule)).toEqual(wider)
  })

  it('changes while it is paused, and is the copies’ from their beginning', async () => {
    const capsule = await platform.create()
    await json(await platform.call('POST', `/v1/capsules/${capsule.id}/pause?wait_sec=30`), 200)
    expect((await put(capsule, narrow)).in_force).toBe(true)
    const forked = await platform.call('POST', `/v1/capsules/${capsule.id}/fork`, { count: 2 })
    const { capsules } = await json<ForkResult>(forked, 201)
    for (const copy of capsules) {
      expect(await untilInForce(copy)).toMatchObject({ policy: narrow, in_force: true })
      expect(atHost(copy)).toEqual(narrow)
    }
  })
})

describe('what rules set', () => {
  const TOKEN = 'Bearer s3cret-of-a-rule'
  const OTHER = 'Bearer 0ther-of-a-rule'
  const KEY = 'ab'.repeat(32)
  const rules = [{ host: 'API.example.', headers: { Authorization: TOKEN, 'x-team': 'blue' } }]
  const shown = [{ host: 'api.example', headers: ['authorization', 'x-team'] }]
  const sent = [{ host: 'api.example', headers: { authorization: TOKEN, 'x-team': 'blue' } }]
  const lines: string[] = []
  let keyed: Platform

  beforeAll(async () => {
    const write = (fields: Readonly<Record<string, unknown>>, event: string) =>
      void lines.push(`${event} ${JSON.stringify(fields)}`)
    const logger: Logger = { debug: write, info: write, warn: write, error: write, child: () => logger }
    keyed = await startPlatform({ databaseUrl: postgres.url, env: { WRENN_ENCRYPTION_KEY: KEY }, logger })
  }, 30_000)
  afterAll(async () => {
    await keyed[Symbol.asyncDispose]()
  })

  const made = async (body: object = { egress: { rules } }) => await keyed.create(body)
  const putKeyed = async (capsule: Capsule, policy: object, status = 200): Promise<EgressStatus> =>
    await json(await keyed.call('PUT', `${path(capsule)}?wait_sec=20`, policy), status)
  /** What the host sets. */
  const rulesAtHost = ({ id }: Pick<Capsule, 'id'>) =>
    keyed.host.capsules.get(id)?.request?.egress?.rules.map(({ host, headers }) => ({ host, headers }))
  /** All rows of all tables. */
  const databaseText = async (): Promise<string> => {
    const db = openDatabase({ url: keyed.databaseUrl })
    try {
      const { rows } = await sql<{ name: string }>`SELECT quote_ident(tablename) AS name FROM pg_tables
        WHERE schemaname = current_schema()`.execute(db)
      const texts = rows.map(async ({ name }) => (await sql`SELECT t::text FROM ${sql.raw(name)} t`.execute(db)).rows)
      return JSON.stringify(await Promise.all(texts))
    } finally {
      await db.destroy()
    }
  }

  it('reaches the host, and is shown to nobody', async () => {
    const capsule = await made()
    expect(rulesAtHost(capsule)).toEqual(sent)
    const status = await json<EgressStatus>(await keyed.call('GET', path(capsule)), 200)
    expect(status).toMatchObject({ policy: { rules: shown }, in_force: true })
    const answers = [JSON.stringify(capsule), JSON.stringify(status)]
    answers.push(
      JSON.stringify(await putKeyed(capsule, { rules: [{ host: 'api.example', headers: { Authorization: OTHER } }] })),
    )
    expect(rulesAtHost(capsule)).toEqual([{ host: 'api.example', headers: { authorization: OTHER } }])
    for (const each of ['/v1/capsules', `/v1/capsules/${capsule.id}`, '/v1/audit-logs', `/sandboxes/${capsule.id}`]) {
      answers.push(await (await keyed.call('GET', each)).text())
    }
    const entries = await json<AuditPage>(await keyed.call('GET', '/v1/audit-logs?action=capsule.egress'), 200)
    expect(entries.items[0]?.details.rules).toBe('api.example(authorization)')
    const database = await databaseText()
    expect(database).toContain('api.example') // so that the rest of a row would be found
    for (const text of [...answers, database, ...lines]) expect(text).not.toMatch(/s3cret-of-a-rule|0ther-of-a-rule/)
  })

  it('is kept where it is named alone, and gone where it is left out', async () => {
    const capsule = await made()
    const kept = [
      { host: 'api.example', headers: ['Authorization'] },
      { host: '*.other.example', headers: { a: 'b' } },
    ]
    expect((await putKeyed(capsule, { rules: kept })).policy.rules).toEqual([
      { host: 'api.example', headers: ['authorization'] },
      { host: '*.other.example', headers: ['a'] },
    ])
    expect(rulesAtHost(capsule)?.[0]).toEqual({ host: 'api.example', headers: { authorization: TOKEN } })
    const gone = await json<ErrorBody>(await keyed.call('PUT', path(capsule), { rules: shown }), 400)
    expect(gone.error.message).toContain('x-team of api.example has no value')
    expect((await putKeyed(capsule, {})).policy.rules).toBeUndefined()
    expect(rulesAtHost(capsule)).toEqual([])
    expect((await keyed.call('POST', '/v1/capsules', { egress: { rules: shown } })).status).toBe(400)
  })

  it('is a change when it is another, and none when it is the same', async () => {
    const capsule = await made()
    const revision = () => keyed.host.capsules.get(capsule.id)?.request?.egressRevision
    await putKeyed(capsule, { rules })
    expect(revision()).toBe(1n)
    await putKeyed(capsule, { rules: [{ host: 'api.example', headers: { authorization: OTHER, 'x-team': 'blue' } }] })
    expect(revision()).toBe(2n)
  })

  it('is proposed again with what was learned', async () => {
    const capsule = await made({ egress: { rules, learn: true } })
    const status = await json<EgressStatus>(await keyed.call('GET', path(capsule)), 200)
    expect(status.learned?.proposal.rules).toEqual(shown)
    await putKeyed(capsule, status.learned?.proposal ?? {})
    expect(rulesAtHost(capsule)).toEqual(sent)
  })

  it('goes with copies, pauses and rollbacks', async () => {
    const capsule = await made()
    const checkpoint = await keyed.call('POST', `/v1/capsules/${capsule.id}/checkpoints?wait_sec=30`, {})
    const { id } = await json<{ id: string }>(checkpoint, 201)
    await json(await keyed.call('POST', `/v1/capsules/${capsule.id}/checkpoints/${id}/rollback?wait_sec=30`), 200)
    expect(rulesAtHost(capsule)).toEqual(sent)
    const forked = await keyed.call('POST', `/v1/capsules/${capsule.id}/fork?wait_sec=30`, { count: 2 })
    const { capsules } = await json<ForkResult>(forked, 201)
    for (const copy of capsules) expect(rulesAtHost(copy)).toEqual(sent)
    await json(await keyed.call('POST', `/v1/capsules/${capsule.id}/pause?wait_sec=30`), 200)
    await json(await keyed.call('POST', `/v1/capsules/${capsule.id}/resume?wait_sec=30`), 200)
    expect(rulesAtHost(capsule)).toEqual(sent)
  })

  it('is told again to a host that has forgotten it', async () => {
    const capsule = await made()
    await keyed.host.stop()
    await keyed.host.start()
    const again = async () => (rulesAtHost(capsule)?.length === 1 ? true : undefined)
    await waitFor(again, { timeoutMs: 20_000, what: 'the rules to be at the host again' })
    expect(rulesAtHost(capsule)).toEqual(sent)
  })

  it('is encrypted anew by the key that comes first, also of a capsule that nobody uses', async () => {
    const env = (keys: string) => ({ WRENN_ENCRYPTION_KEY: keys })
    const next = 'cd'.repeat(32)
    await using mine = await startPlatform({ databaseUrl: postgres.url, env: env(KEY) })
    const { id } = await mine.create({ egress: { rules } })
    const db = openDatabase({ url: mine.databaseUrl, maxConnections: 1 })
    const sealedBy = async (): Promise<string | undefined> => {
      const [row] = await db.selectFrom('capsules').select('egress_rules').where('id', '=', id).execute()
      return row?.egress_rules?.split('.')[1]
    }
    try {
      const before = await sealedBy()
      expect(before).toBeDefined()
      await using _newer = await startReplica(mine, env(`${next},${KEY}`))
      const other = async () => ((await sealedBy()) === before ? undefined : true)
      await waitFor(other, { timeoutMs: 20_000, what: 'the rules to be encrypted anew' })
      await using newest = await startReplica(mine, env(next))
      const headers = { 'x-api-key': mine.key, 'content-type': 'application/json' }
      const body = JSON.stringify({ rules: shown })
      await json(
        await fetch(`${newest.url}/v1/capsules/${id}/egress?wait_sec=20`, { method: 'PUT', headers, body }),
        200,
      )
    } finally {
      await db.destroy()
    }
  })

  it('makes requests of one key the same or others', async () => {
    const headers = { 'idempotency-key': 'rules-1' }
    const ask = async (value: string) =>
      await keyed.call(
        'POST',
        '/v1/capsules',
        { egress: { rules: [{ host: 'a.example', headers: { a: value } }] } },
        headers,
      )
    const first = await json<Capsule>(await ask('one'), 201)
    expect((await json<Capsule>(await ask('one'), 201)).id).toBe(first.id)
    expect((await json<ErrorBody>(await ask('two'), 409)).error.code).toBe('idempotency_mismatch')
  })

  it.each([
    ['an address', { host: '203.0.113.1', headers: { a: 'hunter2' } }, '203.0.113.1'],
    ['a wildcard for a whole top level', { host: '*.com', headers: { a: 'hunter2' } }, '*.com'],
    ['no header', { host: 'a.example', headers: {} }, '1 to 16 headers'],
    ['what belongs to a connection', { host: 'a.example', headers: { Host: 'hunter2' } }, 'host belongs'],
    ['a header twice', { host: 'a.example', headers: { A: 'hunter2', a: 'hunter2' } }, 'a is there twice'],
    ['a value of two lines', { host: 'a.example', headers: { a: 'hunter2\r\nb: c' } }, 'visible ASCII'],
    ['no name of a header', { host: 'a.example', headers: { 'a b': 'hunter2' } }, 'rules'],
    ['a field that is none', { host: 'a.example', headers: { a: 'b' }, header: 'hunter2' }, 'did you mean'],
  ])('is refused for %s, without being repeated', async (_what, rule, named) => {
    const capsule = await made({})
    for (const [method, at, body] of [
      ['PUT', path(capsule), { rules: [rule] }],
      ['POST', '/v1/capsules', { egress: { rules: [rule] } }],
    ] as const) {
      const text = await (await keyed.call(method, at, body)).text()
      expect(JSON.parse(text).error.code).toBe('invalid_request')
      expect(text).toContain(named)
      expect(text).not.toContain('hunter2')
    }
  })

  it('is refused twice for a host, and where there is too much of it', async () => {
    const capsule = await made({})
    const refusal = async (wish: object) =>
      (await json<ErrorBody>(await keyed.call('PUT', path(capsule), { rules: wish }), 400)).error.message
    expect(await refusal([...rules, ...sent])).toContain('another rule for api.example')
    const big = Array.from({ length: 9 }, (_, n) => ({ host: `h${n}.example`, headers: { a: 'x'.repeat(8000) } }))
    expect(await refusal(big)).toContain('at most 65536')
  })

  it('comes and goes by clients made for E2B', async () => {
    const headers = { Authorization: TOKEN }
    const network = { rules: { 'api.example': [{ transform: { headers } }] } }
    const body = { templateID: 'base', network }
    const { sandboxID: id } = await json<{ sandboxID: string }>(await keyed.call('POST', '/sandboxes', body), 201)
    expect(rulesAtHost({ id })).toEqual([{ host: 'api.example', headers: { authorization: TOKEN } }])
    const info = await json<{ network: unknown }>(await keyed.call('GET', `/sandboxes/${id}`), 200)
    expect(info.network).toMatchObject({
      rules: { 'api.example': [{ transform: { headers: { authorization: '' } } }] },
    })
    const changed = { rules: { 'api.example': [{ transform: { headers: { Authorization: OTHER } } }] } }
    expect((await keyed.call('PUT', `/sandboxes/${id}/network`, changed)).status).toBe(204)
    expect(rulesAtHost({ id })).toEqual([{ host: 'api.example', headers: { authorization: OTHER } }])
    expect((await keyed.call('PUT', `/sandboxes/${id}/network`, {})).status).toBe(204)
    expect(rulesAtHost({ id })).toEqual([])
  })

  it('is not taken by a platform that has no key to keep it with', async () => {
    const capsule = await platform.create()
    for (const [method, at, body] of [
      ['PUT', path(capsule), { rules }],
      ['POST', '/v1/capsules', { egress: { rules } }],
    ] as const) {
      const { error } = await json<ErrorBody>(await platform.call(method, at, body), 501)
      expect(error).toMatchObject({ code: 'not_supported', message: expect.stringContaining('WRENN_ENCRYPTION_KEY') })
    }
  })
})
