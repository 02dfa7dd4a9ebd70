import type { AnyTeam, AuditPage, ErrorBody, Quota } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_QUOTA_RUNNING_CAPSULES: '5' } })
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const page = async (query = ''): Promise<AnyTeam[]> =>
  await json<AnyTeam[]>(await platform.call('GET', `/v1/admin/teams${query}`), 200)
const own = async (): Promise<AnyTeam> => {
  const [first] = await page()
  if (first === undefined) throw new Error('the platform begins with a team')
  return first
}
const set = (id: string, limits: object): Promise<Response> =>
  platform.call('PATCH', `/v1/admin/teams/${id}/quota`, limits)
const none = {
  ...{ running_capsules: null, vcpus: null, memory_mb: null, pool_bytes: null },
  ...{ creating_capsules: null, api_calls_per_min: null },
}

describe('all teams', () => {
  it('are listed page after page, deleted ones left out', async () => {
    const made: string[] = []
    for (const name of ['one', 'two', 'three']) made.push(await createTeam(db, name))
    const gone = await createTeam(db, 'gone')
    await db
      .updateTable('teams')
      .set({ deleted_at: new Date() as never })
      .where('id', '=', gone)
      .execute()
    const all = await page()
    expect(all.slice(-3)).toMatchObject(made.map((id) => ({ id, members: 0, quota: none })))
    expect(all.map(({ id }) => id)).not.toContain(gone)
    const seen: string[] = []
    for (let after = ''; ; ) {
      const next = await page(`?limit=2${after}`)
      seen.push(...next.map(({ id }) => id))
      if (next.length < 2) break
      after = `&after=${next.at(-1)?.id}`
    }
    expect(seen).toEqual(all.map(({ id }) => id))
  })
})

describe('limits of a team', () => {
  it('are its own from the next start on, or the platform gives them again', async () => {
    const { id } = await own()
    const limited = await json<AnyTeam>(await set(id, { running_capsules: 1, pool_bytes: 0 }), 200)
    expect(limited.quota).toEqual({ ...none, running_capsules: 1, pool_bytes: 0 })
    const capsule = await platform.create()
    const refused = await json<ErrorBody>(await platform.call('POST', '/v1/capsules', {}), 429)
    expect(refused.error).toMatchObject({ code: 'pool_exhausted', details: { max: 1 } })
    const quota = await json<Quota>(await platform.call('GET', `/v1/admin/teams/${id}/quota`), 200)
    expect(quota.running_capsules).toEqual({ used: 1, limit: 1 })
    await json(await set(id, { running_capsules: null }), 200)
    expect((await json<Quota>(await platform.call('GET', '/v1/quota'), 200)).running_capsules.limit).toBe(5)
    await platform.create()
    await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
  })

  it('are in the audit trail of the team when they changed, and not when they did not', async () => {
    const { id } = await own()
    await json(await set(id, { vcpus: 7 }), 200)
    await json(await set(id, { vcpus: 7 }), 200)
    await json(await set(id, {}), 200)
    await json(await set(id, { vcpus: null }), 200)
    const { items } = await json<AuditPage>(
      await platform.call('GET', '/v1/audit-logs?action=team.set_quota&limit=2'),
      200,
    )
    expect(items.map(({ details }) => details)).toEqual([{ max_vcpus: 'default' }, { max_vcpus: '7' }])
  })

  it.each([
    ['a negative one', { vcpus: -1 }, 400],
    ['a fraction', { running_capsules: 1.5 }, 400],
    ['more than is kept', { memory_mb: 2 ** 31 }, 400],
    ['one of something else', { disks: 3 }, 400],
  ])('are refused: %s', async (_, limits, status) => {
    const { id } = await own()
    expect((await set(id, limits)).status).toBe(status)
  })

  it('are refused for a team that is not there', async () => {
    expect((await set(`team-${'a'.repeat(25)}`, { vcpus: 1 })).status).toBe(404)
    expect((await set('team-1', { vcpus: 1 })).status).toBe(400)
  })
})
