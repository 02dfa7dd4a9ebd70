import type { AnyCapsulePage, PlatformHealth } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({
    env: { WRENN_SMTP_URL: 'smtp://somebody:hush-hush@localhost:2525', WRENN_MAIL_FROM: 'wrenn@example.com' },
  })
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

describe('the capsules of all teams', () => {
  const page = async (query = ''): Promise<AnyCapsulePage> =>
    await json<AnyCapsulePage>(await platform.call('GET', `/v1/admin/capsules${query}`), 200)

  it('are listed page after page with whose they are, and by team and state', async () => {
    const mine = await platform.create({ name: 'mine' })
    const gone = await platform.create({})
    const theirs = await platform.create({ name: 'theirs' })
    const other = await createTeam(db, 'Others')
    await db.updateTable('capsules').set({ team_id: other }).where('id', '=', theirs.id).execute()
    await platform.call('POST', `/v1/capsules/${mine.id}/pause`)
    await platform.call('DELETE', `/v1/capsules/${gone.id}`)
    const { items } = await page()
    expect(items.map(({ id }) => id)).toEqual([theirs.id, mine.id])
    expect(items[0]).toMatchObject({ name: 'theirs', team_id: other, team_name: 'Others', state: 'running', vcpus: 1 })
    expect(Object.keys(items[0] ?? {})).not.toContain('labels')
    const first = await page('?limit=1')
    expect(first.items).toEqual(items.slice(0, 1))
    expect(await page(`?limit=1&cursor=${first.next_cursor}`)).toEqual({ items: items.slice(1) })
    expect((await page(`?team_id=${other}`)).items).toEqual(items.slice(0, 1))
    expect((await page('?state=paused')).items).toEqual(items.slice(1))
    expect((await platform.call('GET', '/v1/admin/capsules?cursor=x')).status).toBe(400)
    expect((await platform.call('GET', '/v1/admin/capsules?state=stopped')).status).toBe(400)
  })
})

describe('the health of the platform', () => {
  const look = async (): Promise<PlatformHealth> =>
    await json<PlatformHealth>(await platform.call('GET', '/v1/admin/health'), 200)

  it('tells of host, control planes, database and mail', async () => {
    const capsule = await platform.create({ vcpus: 1, memory_mb: 512 })
    const health = await look()
    expect(health.hosts).toMatchObject([
      { id: capsule.host_id, answers: true, engine: 'fake', status: { ready: true, cpus: expect.any(Number) } },
    ])
    const [host] = health.hosts
    expect(host?.running_capsules).toBeGreaterThan(0)
    expect(host?.used_memory_mb).toBe((host?.used_vcpus ?? 0) * 512)
    expect(host?.capsules).toBeGreaterThanOrEqual(host?.running_capsules ?? 0)
    expect(health.database).toMatchObject({ version: expect.stringMatching(/^\d+/), pending_migrations: 0 })
    expect(health.database.migration).toMatch(/^\d{4}-/)
    expect(health.control_plane.replicas).toBe(1)
    expect(health.mail).toMatchObject({ via: 'smtp', to: 'localhost:2525', from: 'wrenn@example.com', waiting: 0 })
    expect(JSON.stringify(health)).not.toContain('hush')
  })

  it('counts the control planes that are there', async () => {
    const replica = await startReplica(platform)
    await expect.poll(async () => (await look()).control_plane.replicas).toBe(2)
    await replica[Symbol.asyncDispose]()
    await expect.poll(async () => (await look()).control_plane.replicas).toBe(1)
  })

  it('says first what is wrong: a host that has gone with capsules on it', async () => {
    const { id } = await platform.create({})
    await db
      .insertInto('hosts')
      .values({ id: 'host-gone', address: 'unix:/gone', agent_version: '0', engine: 'fake', last_seen_at: new Date(0) })
      .execute()
    expect((await look()).hosts).toHaveLength(1)
    await db.updateTable('capsules').set({ host_id: 'host-gone' }).where('id', '=', id).execute()
    const { hosts, problems } = await look()
    expect(hosts[1]).toMatchObject({ id: 'host-gone', answers: false, last_seen_at: new Date(0).toISOString() })
    expect(problems[0]).toMatchObject({
      severity: 'error',
      part: 'host',
      message: expect.stringContaining('host-gone'),
    })
  })
})
