import type { AnyUsage, CapsuleStats, CapsuleUsage, ErrorBody, RecomputedUsage, UsageCheck } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

let platform: Platform

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const get = async <T>(path: string, status = 200): Promise<T> => await json<T>(await platform.call('GET', path), status)
const stats = async (query = ''): Promise<CapsuleStats> => await get<CapsuleStats>(`/v1/capsules/stats${query}`)
const usage = async (query = ''): Promise<CapsuleUsage> => await get<CapsuleUsage>(`/v1/capsules/usage${query}`)
const inDatabase = async <T>(task: (db: ReturnType<typeof openDatabase>) => Promise<T>): Promise<T> => {
  const db = openDatabase({ url: platform.databaseUrl })
  try {
    return await task(db)
  } finally {
    await db.destroy()
  }
}
/** What the ledger says of a capsule, the open entry last. */
const statesOf = async (id: string): Promise<string[]> =>
  await inDatabase(async (db) => {
    const { rows } = await sql<{
      state: string
    }>`SELECT state FROM usage_ledger WHERE capsule_id = ${id} ORDER BY id`.execute(db)
    return rows.map(({ state }) => state)
  })

describe('stats of capsules', () => {
  it('say what runs now, and in each step of a range', async () => {
    const { id } = await platform.create({ vcpus: 2, memory_mb: 1024 })
    const before = await stats()
    expect(before.range).toBe('1h')
    expect(before.current.running_count).toBeGreaterThan(0)
    expect(before.series.labels).toHaveLength(120)
    for (const list of [before.series.running, before.series.vcpus, before.series.memory_mb])
      expect(list).toHaveLength(120)
    expect(before.series.running.at(-1)).toBeGreaterThanOrEqual(before.current.running_count)
    expect(before.series.running[0]).toBe(0)
    expect(before.peaks.vcpus).toBeGreaterThanOrEqual(2)
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    await platform.until(id, 'paused')
    const paused = await stats('?range=5m')
    expect(paused.current).toEqual({
      running_count: before.current.running_count - 1,
      vcpus_reserved: before.current.vcpus_reserved - 2,
      memory_mb_reserved: before.current.memory_mb_reserved - 512,
    })
    const [first, second] = paused.series.labels
    expect(Date.parse(second ?? '') - Date.parse(first ?? '')).toBe(3_000)
    expect(paused.peaks).toEqual(before.peaks)
    for (const range of ['6h', '24h', '30d']) expect((await stats(`?range=${range}`)).series.labels).toHaveLength(120)
  })

  it('refuse other ranges', async () => {
    for (const query of ['?range=2h', '?range=', '?range=5m&range=1h']) {
      expect((await get<ErrorBody>(`/v1/capsules/stats${query}`, 400)).error.code, query).toBe('invalid_request')
    }
  })
})

describe('usage of capsules', () => {
  it('counts from the first moment to the last, and what waits for its host or is over for nothing', async () => {
    const { id } = await platform.create()
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    await platform.call('POST', `/v1/capsules/${id}/resume`)
    await platform.call('DELETE', `/v1/capsules/${id}`)
    await platform.until(id, 'stopped')
    const states = ['pending', 'starting', 'running', 'pausing', 'paused', 'resuming', 'running', 'stopping']
    expect(await statesOf(id)).toEqual(states)
    const open = await inDatabase((db) =>
      sql`SELECT 1 FROM usage_ledger WHERE capsule_id = ${id} AND ended_at IS NULL`.execute(db),
    )
    expect(open.rows).toEqual([])
  })

  it('counts forks and rollbacks as what they are', async () => {
    const { id } = await platform.create()
    await json(await platform.call('POST', `/v1/capsules/${id}/checkpoints`, { name: 'before' }), 201)
    const forks = await json<{ readonly id: string }[] | { readonly capsules: { readonly id: string }[] }>(
      await platform.call('POST', `/v1/capsules/${id}/fork`, { count: 2 }),
      201,
    )
    for (const fork of Array.isArray(forks) ? forks : forks.capsules) {
      await platform.until(fork.id, 'running')
      expect((await statesOf(fork.id)).at(-1)).toBe('running')
    }
    await platform.call('POST', `/v1/capsules/${id}/rollback`, { checkpoint: 'before' })
    expect((await statesOf(id)).at(-1)).toBe('running')
    expect(await get<UsageCheck>('/v1/capsules/usage/verify')).toMatchObject({ ok: true, strays: [] })
  })

  it('is of today and grows, in units of old and new', async () => {
    await platform.create({ vcpus: 2, memory_mb: 1024, disk_size_mb: 2048 })
    const { from, to, points, total } = await usage()
    expect(Date.parse(to) - Date.parse(from)).toBe(29 * 24 * 3600_000)
    expect(points.length).toBeGreaterThan(0)
    expect(total.vcpu_seconds).toBeGreaterThan(0)
    expect(total.cpu_minutes).toBeCloseTo(total.vcpu_seconds / 60, 3)
    expect(total.ram_mb_minutes).toBeGreaterThan(0)
    expect(total.disk_gib_seconds).toBeGreaterThan(0)
    await expect.poll(async () => (await usage()).total.vcpu_seconds).toBeGreaterThan(total.vcpu_seconds)
    const months = await usage('?period=month')
    expect(months.points.at(-1)?.date).toMatch(/-01$/)
  })

  it('is a table for who asks for one', async () => {
    const response = await platform.call('GET', '/v1/capsules/usage?format=csv')
    expect(response.headers.get('content-type')).toMatch(/^text\/csv/)
    expect(response.headers.get('content-disposition')).toMatch(/^attachment; filename="usage-[\d-]+\.csv"$/)
    const [head, ...lines] = (await response.text()).trimEnd().split('\r\n')
    expect(head).toBe(
      'date,cpu_minutes,ram_mb_minutes,vcpu_seconds,memory_gib_seconds,disk_gib_seconds,net_rx_bytes,net_tx_bytes',
    )
    expect(lines.length).toBeGreaterThan(0)
    for (const line of lines) expect(line).toMatch(/^\d{4}-\d\d-\d\d(,[\d.]+){7}$/)
    const teams = await platform.call('GET', '/v1/admin/usage?format=csv')
    expect((await teams.text()).split('\r\n')[0]).toMatch(/^team_id,team_name,cpu_minutes/)
  })

  it.each([
    ['a date that there is not', '?from=2026-02-30'],
    ['a time', '?from=2026-02-03T00:00Z'],
    ['years that databases do not know', '?from=0000-01-01&to=0000-01-02'],
    ['an end before the begin', '?from=2026-02-03&to=2026-02-02'],
    ['more than 92 days', '?from=2026-01-01&to=2026-04-03'],
    ['more than three years of months', '?from=2020-01-01&to=2026-01-01&period=month'],
    ['another period', '?period=week'],
    ['another format', '?format=xml'],
  ])('refuses %s', async (_, query) => {
    for (const path of ['/v1/capsules/usage', '/v1/admin/usage']) {
      const isOnlyOfTeam = path.includes('admin') && query.includes('period')
      if (isOnlyOfTeam) continue
      expect((await get<ErrorBody>(`${path}${query}`, 400)).error.code, query).toBe('invalid_request')
    }
  })

  it('may be of as many days as it says, of the past and of times to come', async () => {
    expect((await usage('?from=2026-01-01&to=2026-04-02')).points).toEqual([])
    expect((await usage('?from=2999-12-01&to=2999-12-31&period=month')).points).toEqual([])
    expect((await usage('?from=2998-12-31')).to).toBe('2998-12-31')
    expect((await usage('?from=1970-01-01&to=1970-01-02')).total.vcpu_seconds).toBe(0)
  })

  it('is told of no other team, but to admins of the platform, also when the team is gone', async () => {
    const other = await inDatabase(async (db) => {
      const teamId = await createTeam(db, 'Other, Ltd.')
      await sql`INSERT INTO capsules (id, team_id, template, vcpus, memory_mib, disk_size_mib, state, desired_state)
        VALUES (${`cl-${'1'.repeat(25)}`}, ${teamId}, 'minimal', 64, 1048576, 64, 'running', 'running')`.execute(db)
      await sql`DELETE FROM capsules WHERE team_id = ${teamId}`.execute(db)
      await sql`UPDATE usage_ledger SET began_at = ended_at - interval '50 seconds' WHERE team_id = ${teamId}`.execute(
        db,
      )
      await sql`UPDATE teams SET deleted_at = now() WHERE id = ${teamId}`.execute(db)
      return teamId
    })
    const mine = await usage()
    expect(mine.total.vcpu_seconds).toBeLessThan(3_200)
    expect((await stats()).peaks.vcpus).toBeLessThan(64)
    const all = await get<AnyUsage>('/v1/admin/usage')
    expect(all.teams.find(({ team_id: id }) => id === other)).toMatchObject({
      team_name: 'Other, Ltd.',
      vcpu_seconds: 3_200,
    })
    expect(await get<UsageCheck>(`/v1/admin/usage/verify?team_id=${other}`)).toMatchObject({ ok: true })
  })

  it('is made anew by admins of the platform', async () => {
    const span = { from: '2026-01-01', to: '2026-01-31' }
    const made = await json<RecomputedUsage>(await platform.call('POST', '/v1/admin/usage/recompute', span), 200)
    expect(made.days).toBe(0)
    const refused = await platform.call('POST', '/v1/admin/usage/recompute', { from: '2026-01-01' })
    expect((await json<ErrorBody>(refused, 400)).error.code).toBe('invalid_request')
  })

  it('is rolled up by one of several control planes, of days that have passed', async () => {
    await using own = await startPlatform()
    await using _second = await startReplica(own)
    const db = openDatabase({ url: own.databaseUrl })
    try {
      const { id } = await own.create()
      await db.transaction().execute(async (tx) => {
        await sql`UPDATE usage_ledger SET began_at = began_at - interval '3 days' WHERE capsule_id = ${id}`.execute(tx)
        await sql`UPDATE usage_state SET rolled_until = rolled_until - 3, kept_from = kept_from - 3`.execute(tx)
      })
      const days = async (): Promise<number> => {
        const { rows } = await sql<{
          days: number
        }>`SELECT count(*) AS days FROM usage_rollups WHERE period = 'day'`.execute(db)
        return rows[0]?.days ?? 0
      }
      await expect.poll(days).toBeGreaterThanOrEqual(3)
      const check = await json<UsageCheck>(await own.call('GET', '/v1/capsules/usage/verify'), 200)
      expect(check).toMatchObject({ ok: true, differences: [] })
      expect(check.days).toBeGreaterThanOrEqual(3)
    } finally {
      await db.destroy()
    }
  })
})
