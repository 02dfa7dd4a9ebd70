import { AppError, silentLogger } from '@wrenn/base'
import type { Capsule } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { findIdle } from './store/idle.js'
import { findEnded } from './store/lifetimes.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const HOUR = 3_600

let postgres: TestPostgres
let platform: Platform
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 30_000)
afterEach(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const at = ({ id }: Capsule, path: string): string => `/v1/capsules/${id}${path}`

/** Makes the last use of a capsule `hours` old, for its row and its host. */
async function age({ id }: Capsule, hours: number): Promise<void> {
  const usedAt = new Date(Date.now() - hours * HOUR * 1000)
  platform.host.activity.set(id, { ...platform.host.activity.get(id), lastActiveAtMs: usedAt.getTime() })
  await db.updateTable('capsules').set({ last_active_at: usedAt }).where('id', '=', id).execute()
}

describe('a capsule that nobody uses for its timeout', () => {
  it('is paused, not destroyed, and says so', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    expect(Date.parse(capsule.pauses_at ?? '') - Date.parse(capsule.last_active_at ?? '')).toBe(HOUR * 1000)
    await age(capsule, 2)
    const paused = await platform.until(capsule.id, 'paused')
    expect(paused).toMatchObject({ status: 'paused', pause_reason: 'idle' })
    expect(paused.pauses_at).toBeUndefined()
    expect(platform.host.capsules.get(capsule.id)?.state).toBe('paused')
  })

  it('starts its timeout anew when it is resumed', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    await age(capsule, 2)
    await platform.until(capsule.id, 'paused')
    platform.host.activity.clear()
    await json(await platform.call('POST', at(capsule, '/resume?wait_sec=30')), 200)
    const running = await platform.until(capsule.id, 'running')
    expect(Date.parse(running.pauses_at ?? '')).toBeGreaterThan(Date.now())
    expect(await findIdle(db, 10, { firstMs: 1, maxMs: 1 })).toEqual([])
  })

  it('is left alone without a timeout', async () => {
    const forever = await platform.create()
    const timed = await platform.create({ timeout_sec: HOUR })
    await age(forever, 2)
    await age(timed, 2)
    await platform.until(timed.id, 'paused')
    expect((await platform.get(forever.id)).state).toBe('running')
  })

  it('stays awake, and tells why, while its host knows a reason', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    platform.host.activity.set(capsule.id, { reasons: ['process', 'cpu'] })
    await age(capsule, 2)
    await expect.poll(async () => (await platform.get(capsule.id)).awake_because).toEqual(['process', 'cpu'])
    const awake = await platform.get(capsule.id)
    expect(awake.state).toBe('running')
    expect(Date.parse(awake.pauses_at ?? '')).toBeGreaterThan(Date.now())
    platform.host.activity.set(capsule.id, { reasons: [] })
    await age(capsule, 2)
    expect((await platform.until(capsule.id, 'paused')).awake_because).toBeUndefined()
  })

  it('stays awake while a stream of this control plane is open', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    platform.host.activity.set(capsule.id, { reasons: [] })
    const socket = platform.open(at(capsule, '/exec/stream'))
    await socket.send({ type: 'start', cmd: 'sleep', args: ['600'] })
    await socket.frame()
    // What the stream did so far is written within a second, and makes it young again.
    const awakeBecause = async () => {
      await age(capsule, 2)
      return (await platform.get(capsule.id)).awake_because
    }
    await expect.poll(awakeBecause, { timeout: 10_000 }).toEqual(['stream'])
    await socket.send({ type: 'stop' })
    await socket.until('exit')
    await expect.poll(() => socket.closed).toBeDefined()
    await expect
      .poll(
        async () => {
          await age(capsule, 2)
          return (await platform.get(capsule.id)).state
        },
        { timeout: 10_000 },
      )
      .toBe('paused')
  })

  it('goes by what its host saw last', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    await age(capsule, 2)
    const seenAt = Date.now() - 60_000
    platform.host.activity.set(capsule.id, { reasons: [], lastActiveAtMs: seenAt })
    await db
      .updateTable('capsules')
      .set({ last_active_at: new Date(seenAt - 2 * HOUR * 1000) })
      .where('id', '=', capsule.id)
      .execute()
    await expect.poll(async () => Date.parse((await platform.get(capsule.id)).last_active_at ?? '')).toBe(seenAt)
    expect((await platform.get(capsule.id)).state).toBe('running')
  })

  it('is paused by one of two control planes', async () => {
    await using _ = await startReplica(platform)
    const capsules = await Promise.all([1, 2, 3, 4].map(() => platform.create({ timeout_sec: HOUR })))
    for (const capsule of capsules) await age(capsule, 2)
    for (const { id } of capsules) await platform.until(id, 'paused')
    const { rows } = await sql<{
      pauses: number
    }>`SELECT count(*) AS pauses FROM operations WHERE kind = 'pause'`.execute(db)
    expect(rows[0]?.pauses).toBe(capsules.length)
  })
})

describe('an idle pause that fails', () => {
  it('leaves the capsule usable and is tried again later, less and less often', async () => {
    const capsule = await platform.create({ timeout_sec: HOUR })
    platform.host.failNext('pause', new AppError('disk_full', 'no space'))
    await age(capsule, 2)
    const failures = async () => {
      const { rows } = await sql<{ count: number }>`SELECT count(*) AS count FROM operations
        WHERE kind = 'pause' AND state = 'failed'`.execute(db)
      return rows[0]?.count ?? 0
    }
    await expect.poll(failures).toBe(1)
    await platform.until(capsule.id, 'running')
    const soon = { firstMs: 0, maxMs: 0 }
    expect((await findIdle(db, 10, soon)).map(({ id }) => id)).toEqual([capsule.id])
    expect(await findIdle(db, 10, { firstMs: 60_000, maxMs: 60_000 })).toEqual([])
    // So many that the platform itself, which tries again after 5 s at first, leaves it alone for ten minutes.
    await sql`INSERT INTO operations (id, team_id, capsule_id, kind, request_hash, state, generation, lease_until, updated_at)
      SELECT 'op-' || n, team_id, capsule_id, kind, request_hash, state, generation, lease_until, now() - interval '3 minutes'
      FROM operations, generate_series(1, 7) AS n WHERE kind = 'pause'`.execute(db)
    await sql`UPDATE operations SET updated_at = now() - interval '3 minutes' WHERE kind = 'pause'`.execute(db)
    // Eight failures: 1, 2, 4, … 128 times the first wait.
    expect(await findIdle(db, 10, { firstMs: 1_000, maxMs: 600_000 })).toHaveLength(1)
    expect(await findIdle(db, 10, { firstMs: 2_000, maxMs: 600_000 })).toEqual([])
    expect(await findIdle(db, 10, { firstMs: 60_000, maxMs: 120_000 })).toHaveLength(1)
    // As many as 2 to their power is more than a number holds.
    await sql`INSERT INTO operations (id, team_id, capsule_id, kind, request_hash, state, generation, lease_until, updated_at)
      SELECT 'op-many-' || n, team_id, capsule_id, kind, request_hash, state, generation, lease_until, updated_at
      FROM operations, generate_series(1, 1100) AS n WHERE id = 'op-1'`.execute(db)
    expect(await findIdle(db, 10, { firstMs: 60_000, maxMs: 120_000 })).toHaveLength(1)
    await sql`UPDATE capsules SET lifetime_sec = 1, on_end = 'pause', ends_at = now() - interval '1 hour'
      WHERE id = ${capsule.id}`.execute(db)
    expect(await findEnded(db, 10, { firstMs: 60_000, maxMs: 120_000 })).toHaveLength(1)
  })
})
