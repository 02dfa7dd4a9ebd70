import { readFileSync } from 'node:fs'
import type { NewApiKey } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let db: Db
let key: string

beforeAll(async () => {
  platform = await startPlatform()
  db = openDatabase({ url: platform.databaseUrl })
  const made = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['monitor'] }), 201)
  key = made.key
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const ask = (headers: Record<string, string> = {}, path = '/metrics') =>
  fetch(`${platform.url}${path}`, { headers: { authorization: `Bearer ${key}`, ...headers } })
const scrape = async (): Promise<string> => {
  const answer = await ask()
  expect(answer.status).toBe(200)
  return await answer.text()
}
/** The value of a sample by its name and labels as they are written. */
const sample = (text: string, name: string): number | undefined => {
  const line = text.split('\n').find((each) => each.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1))
}

describe('GET /metrics', () => {
  it('is for who may see how the platform does', async () => {
    expect((await fetch(`${platform.url}/metrics`)).status).toBe(401)
    const { key: other } = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { scopes: ['read', 'capsules', 'admin'] }),
      201,
    )
    expect((await ask({ authorization: `Bearer ${other}` })).status).toBe(403)
    for (const path of ['/v1/capsules', '/v1/admin/users', '/v1/admin/teams', '/v1/admin/capsules', '/v1/api-keys'])
      expect([path, (await ask({}, path)).status]).toEqual([path, 403])
    expect((await ask({}, '/v1/admin/health')).status).toBe(200)
  })

  it('counts capsules of all teams, operations and what hosts have', async () => {
    const before = sample(await scrape(), 'wrenn_capsules{state="running"}') ?? Number.NaN
    const awake = await platform.create({ vcpus: 1, memory_mb: 512 })
    const asleep = await platform.create({ vcpus: 1, memory_mb: 512 })
    await json(await platform.call('POST', `/v1/capsules/${asleep.id}/pause`), 200)
    const text = await scrape()
    expect(sample(text, 'wrenn_capsules{state="running"}')).toBe(before + 1)
    expect(sample(text, 'wrenn_capsules{state="paused"}')).toBe(1)
    expect(sample(text, 'wrenn_capsules{state="error"}')).toBe(0)
    expect(sample(text, 'wrenn_database_up')).toBe(1)
    const host = `{host="${awake.host_id}"}`
    expect(sample(text, `wrenn_host_up${host}`)).toBe(1)
    expect(sample(text, `wrenn_host_capsules${host}`)).toBeGreaterThanOrEqual(2)
    expect(sample(text, `wrenn_host_used_memory_bytes${host}`)).toBe(
      (sample(text, `wrenn_host_used_vcpus${host}`) ?? 0) * 512 * 2 ** 20,
    )
    expect(sample(text, `wrenn_host_pool_free_bytes${host}`)).toBeGreaterThan(0)
    const ended = 'wrenn_operation_seconds_count{kind="pause",outcome="succeeded"}'
    await expect.poll(async () => sample(await scrape(), ended)).toBeGreaterThanOrEqual(1)
  })

  it('says that a host does not answer, and goes on', async () => {
    await db
      .insertInto('hosts')
      .values({ id: 'host-gone', address: 'unix:/gone', agent_version: '0', engine: 'fake', last_seen_at: new Date(0) })
      .execute()
    const { id } = await platform.create({})
    await db.updateTable('capsules').set({ host_id: 'host-gone' }).where('id', '=', id).execute()
    const text = await scrape()
    expect(sample(text, 'wrenn_host_up{host="host-gone"}')).toBe(0)
    expect(sample(text, 'wrenn_host_cpus{host="host-gone"}')).toBeUndefined()
    expect(sample(text, 'wrenn_problems{severity="error"}')).toBeGreaterThanOrEqual(1)
  })

  it('names a request behind its time to who accepts OpenMetrics', async () => {
    const capsules = await platform.call('GET', '/v1/capsules')
    const id = capsules.headers.get('x-request-id')
    const read = async () => {
      const answer = await ask({ accept: 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5' })
      expect(answer.headers.get('content-type')).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8')
      return await answer.text()
    }
    await expect.poll(read).toContain(`# {request_id="${id}"}`)
    expect(await read()).toMatch(/\n# EOF\n$/)
    const plain = await ask()
    expect(plain.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(await plain.text()).not.toContain('request_id')
  })

  it.each(['alerts.yml', 'grafana-dashboard.json'])('has every number that %s asks for', async (file) => {
    const asked = readFileSync(new URL(`../../../deploy/monitoring/${file}`, import.meta.url), 'utf8')
    const names = new Set(asked.match(/\b(?:wrenn|process|nodejs)_[a-z0-9_]+/g))
    expect(names.size).toBeGreaterThan(5)
    const text = await scrape()
    for (const name of names) expect(text, name).toMatch(new RegExp(`^${name}[ {]`, 'm'))
  })

  it('tells nothing of a team or a capsule', async () => {
    const { id } = await platform.create({ name: 'private-name' })
    const text = await scrape()
    for (const secret of [id, 'private-name', 'team-', key]) expect(text).not.toContain(secret)
  })
})
