import { setTimeout as delay } from 'node:timers/promises'
import { silentLogger } from '@wrenn/base'
import { testPostgresKinds } from '@wrenn/testkit'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from '../../store/database.js'
import { createTeam } from '../../store/teams.js'
import { findBuckets } from '../../store/usage-ledger.js'
import { lockRollUps } from '../../store/usage-roll-ups.js'
import { useDatabases } from '../../testing/databases.js'
import { UsageWorld, WORLD_BEGIN } from '../../testing/usage-world.js'
import { UsageRollUp } from './roll-up.js'
import { fill } from './series.js'
import { Usage } from './usage.js'

const DAYS = 4
/** Of the worlds that are lived in here; `bench/usage.ts` takes others. */
const SEED = 20_261_129
const DAY_MS = 24 * 3600_000
const span = { from: '2026-01-01', to: '2026-03-01' }
const actor = { id: 'key-1', name: 'key', requestId: 'r', ip: '' }

interface Rolled {
  readonly key: string
  readonly sums: readonly [string, string, string, string]
}

describe.each(testPostgresKinds())('the ledger of usage on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let db: Db
  let url: string
  let usage: Usage

  beforeEach(async () => {
    await open()
  })
  afterEach(async () => {
    await db.destroy()
  })

  async function open(): Promise<void> {
    const made = await fresh()
    db = made.db
    url = made.url
    usage = new Usage(db)
  }
  const rollUp = async (ledgerDays = 0, rollUpDays = 0): Promise<void> =>
    await new UsageRollUp({ db, logger: silentLogger, ledgerDays, rollUpDays }).roll()
  const teams = async (count: number): Promise<string[]> =>
    await Promise.all(Array.from({ length: count }, (_, index) => createTeam(db, `Team ${index}`)))
  /** In thousandths, which is what the clock of tests counts. */
  const rolledUp = async (period: 'day' | 'month'): Promise<Rolled[]> => {
    const { rows } = await sql<Rolled>`SELECT team_id || ' ' || date || ' ' || template AS key,
      ARRAY[vcpu_seconds * 1000, memory_mib_seconds * 1000, paused_mib_seconds * 1000, disk_mib_seconds * 1000]::numeric(40, 0)[]::text[] AS sums
      FROM usage_rollups WHERE period = ${period} ORDER BY 1`.execute(db)
    return rows
  }
  const expected = (sums: ReadonlyMap<string, readonly bigint[]>): Rolled[] =>
    [...sums]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, [a, b, c, d]]) => ({ key, sums: [`${a}`, `${b}`, `${c}`, `${d}`] }))
  /** Puts a clock of ours in place of the database's. */
  const setClock = async (at: string): Promise<void> => {
    await sql`CREATE OR REPLACE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS ${sql.raw(`'SELECT timestamptz ''${at}'''`)}`.execute(
      db,
    )
  }
  const beginAt = async (at: string): Promise<void> => {
    await setClock(at)
    await sql`UPDATE usage_state SET closed_until = date_trunc('day', ${at}::timestamptz, 'UTC'),
      rolled_until = ${at.slice(0, 10)}::date, kept_from = ${at.slice(0, 10)}::date`.execute(db)
  }
  const insert = async (teamId: string, id: string, state = 'running'): Promise<void> => {
    await sql`INSERT INTO capsules (id, team_id, template, vcpus, memory_mib, disk_size_mib, state, desired_state)
      VALUES (${id}, ${teamId}, 'minimal', 2, 1025, 2048, ${state}, 'running')`.execute(db)
  }
  const move = async (id: string, state: string): Promise<void> => {
    await sql`UPDATE capsules SET state = ${state} WHERE id = ${id}`.execute(db)
  }
  const entries = async (): Promise<string[]> => {
    const { rows } = await sql<{
      text: string
    }>`SELECT state || ' ' || to_char(began_at AT TIME ZONE 'UTC', 'HH24:MI:SS') ||
      coalesce('-' || to_char(ended_at AT TIME ZONE 'UTC', 'HH24:MI:SS'), '') AS text FROM usage_ledger ORDER BY id`.execute(
      db,
    )
    return rows.map(({ text }) => text)
  }

  it.each([
    ['a clock that runs true', false],
    ['a clock that is set to and fro', true],
  ])(
    'comes to the exact integral with %s, through lost transactions, midnights and the end of a month',
    async (_, hasClockSteps) => {
      const runs = fc.asyncProperty(fc.integer(), async (seed) => {
        await db.destroy()
        await open()
        const random = randomOf(seed)
        const teamIds = await teams(2)
        const world = new UsageWorld({
          ...{ db, random, teamIds, capsules: 25, days: DAYS, changes: 30, hasClockSteps },
          onDay: () => rollUp(),
        })
        await world.prepare()
        await world.run()
        const exact = world.integral()
        const { rows } = await sql<{ until: string }>`SELECT rolled_until::text AS until FROM usage_state`.execute(db)
        const until = rows[0]?.until ?? ''
        const whole = new Map([...exact].filter(([key]) => (key.split(' ')[1] ?? '') < until))
        expect(whole.size).toBeGreaterThan(0)
        expect(await rolledUp('day')).toEqual(expected(whole))
        expect(await rolledUp('month')).toEqual(expected(byMonth(whole)))
        for (const teamId of teamIds) {
          const { points } = await usage.of(teamId, span, 'day')
          for (const { date, vcpu_seconds: seconds } of points) {
            const ofDay = [...exact].filter(([key]) => key.startsWith(`${teamId} ${date} `))
            expect(seconds).toBe(Number(ofDay.reduce((sum, [, [vcpus]]) => sum + vcpus, 0n)) / 1000)
          }
          expect(points.length).toBe(
            new Set([...exact.keys()].filter((key) => key.startsWith(teamId)).map((key) => key.split(' ')[1])).size,
          )
          for (const stepSec of [720, 21_600]) {
            const steps = { from: new Date(WORLD_BEGIN), count: (DAYS * DAY_MS) / 1000 / stepSec, stepSec }
            const to = new Date(WORLD_BEGIN + DAYS * DAY_MS)
            const levels = fill(steps, await findBuckets(db, { from: steps.from, to, stepSec }, teamId))
            const brute = levels.map((_, index) => {
              const begin = WORLD_BEGIN + index * stepSec * 1000
              return world.highest(teamId, begin, begin + stepSec * 1000)
            })
            expect(levels).toEqual(brute)
          }
        }
        expect(await usage.verify(span, undefined)).toMatchObject({ ok: true, differences: [], strays: [] })
      })
      await fc.assert(runs, { numRuns: 3, seed: SEED })
    },
    240_000,
  )

  it('enters every change once, and none when the clock is set back', async () => {
    const [teamId = ''] = await teams(1)
    await beginAt('2026-05-01 10:00Z')
    await insert(teamId, 'cl-1', 'starting')
    await setClock('2026-05-01 10:05Z')
    await move('cl-1', 'running')
    await setClock('2026-05-01 09:00Z')
    await move('cl-1', 'pausing')
    await setClock('2026-05-01 09:10Z')
    await move('cl-1', 'paused')
    await setClock('2026-05-01 11:00Z')
    await sql`UPDATE capsules SET name = 'other' WHERE id = 'cl-1'`.execute(db)
    await move('cl-1', 'stopped')
    await sql`DELETE FROM capsules WHERE id = 'cl-1'`.execute(db)
    expect(await entries()).toEqual([
      'starting 10:00:00-10:05:00',
      'running 10:05:00-10:05:00',
      'pausing 10:05:00-10:05:00',
      'paused 10:05:00-11:00:00',
    ])
  })

  it('ends the entry of a capsule that is forgotten, and knows of one that changes its size or its team', async () => {
    const [teamId = '', other = ''] = await teams(2)
    await beginAt('2026-05-01 10:00Z')
    await insert(teamId, 'cl-1')
    await setClock('2026-05-01 10:00:10Z')
    await sql`UPDATE capsules SET vcpus = 4 WHERE id = 'cl-1'`.execute(db)
    await setClock('2026-05-01 10:00:20Z')
    await sql`UPDATE capsules SET team_id = ${other} WHERE id = 'cl-1'`.execute(db)
    await setClock('2026-05-01 10:00:50Z')
    await sql`DELETE FROM capsules WHERE id = 'cl-1'`.execute(db)
    expect((await usage.of(teamId, { to: '2026-05-01' }, 'day')).total.vcpu_seconds).toBe(2 * 10 + 4 * 10)
    expect((await usage.of(other, { to: '2026-05-01' }, 'day')).total.vcpu_seconds).toBe(4 * 30)
    expect((await usage.byTeam({ to: '2026-05-01' })).teams.map(({ team_id: id }) => id)).toEqual([other, teamId])
  })

  it('cuts at midnight in UTC to the second, wherever the session thinks it is', async () => {
    const [teamId = ''] = await teams(1)
    await sql.raw(`ALTER DATABASE ${await nameOf(db)} SET timezone TO 'America/Sao_Paulo'`).execute(db)
    await db.destroy()
    db = openDatabase({ url })
    usage = new Usage(db)
    await beginAt('2026-05-30 23:59:57Z')
    await insert(teamId, 'cl-1')
    await setClock('2026-06-02 00:00:05Z')
    await move('cl-1', 'paused')
    await setClock('2026-06-02 00:01:00Z')
    await rollUp()
    const { points, total } = await usage.of(teamId, { from: '2026-05-30', to: '2026-06-03' }, 'day')
    expect(points.map(({ date, vcpu_seconds: seconds }) => [date, seconds])).toEqual([
      ['2026-05-30', 6],
      ['2026-05-31', 172_800],
      ['2026-06-01', 172_800],
      ['2026-06-02', 10],
    ])
    expect(total.cpu_minutes).toBe(5_760.2667)
    const awake = 3 + 2 * 86_400 + 5
    expect(total.memory_gib_seconds).toBe(Math.round((1025 / 1024) * awake * 1000) / 1000)
    expect(total.ram_mb_minutes).toBe(Math.round(((1025 * awake + (1025 / 2) * 55) / 60) * 10_000) / 10_000)
    expect(total.disk_gib_seconds).toBe(2 * (awake + 55))
    const months = await usage.of(teamId, { from: '2026-05-30', to: '2026-06-03' }, 'month')
    expect([months.from, months.to]).toEqual(['2026-05-01', '2026-06-30'])
    expect(months.points.map(({ date, vcpu_seconds: seconds }) => [date, seconds])).toEqual([
      ['2026-05-01', 6 + 172_800],
      ['2026-06-01', 172_800 + 10],
    ])
    expect(months.total).toEqual(total)
  })

  it('enters nothing in a day that is closed, and waits with its sums for a transaction that may', async () => {
    const [teamId = ''] = await teams(1)
    await beginAt('2026-05-01 23:59:50Z')
    await insert(teamId, 'cl-1')
    const late = await db.startTransaction().execute()
    await sql`UPDATE capsules SET state = 'paused' WHERE id = 'cl-1'`.execute(late)
    await setClock('2026-05-02 00:01:00Z')
    const rolling = rollUp()
    await expect.poll(async () => await closedUntil()).toBe('2026-05-02')
    expect(await rolledUp('day')).toEqual([])
    await late.commit().execute()
    await rolling
    // The first may have given up waiting, where the machine is busy.
    await rollUp()
    expect((await rolledUp('day')).map(({ sums }) => sums)).toEqual([
      ['0', '0', `${1025 * 10_000}`, `${2048 * 10_000}`],
    ])
    await setClock('2026-05-01 23:00Z')
    await move('cl-1', 'running')
    await insert(teamId, 'cl-2')
    expect((await entries()).slice(1)).toEqual(['paused 23:59:50-00:00:00', 'running 00:00:00', 'running 00:00:00'])
    expect(await usage.verify({ from: '2026-05-01', to: '2026-05-01' }, teamId)).toMatchObject({ ok: true, days: 1 })
  })

  it('is verified once at a time for a team, and twice for all', async () => {
    const [one = '', other = '', third = ''] = await teams(3)
    const asked = [one, one, other, third].map((teamId) => usage.verify({}, teamId))
    const [first, again, second, beyond] = await Promise.allSettled(asked)
    expect([first?.status, second?.status]).toEqual(['fulfilled', 'fulfilled'])
    for (const refused of [again, beyond]) expect(refused).toMatchObject({ reason: { code: 'limit_exceeded' } })
    expect(await usage.verify({}, one)).toMatchObject({ ok: true })
  })

  it('is rolled up once, however many do it, and after an outage of days', async () => {
    const [teamId = ''] = await teams(1)
    await beginAt('2026-05-01 12:00Z')
    await insert(teamId, 'cl-1')
    await setClock('2026-05-11 12:00Z')
    await Promise.all([rollUp(), rollUp(), rollUp()])
    await rollUp()
    const { points } = await usage.of(teamId, { from: '2026-05-01', to: '2026-05-11' }, 'day')
    expect(points.map(({ vcpu_seconds: seconds }) => seconds)).toEqual([86_400, ...Array(9).fill(172_800), 86_400])
    expect(await usage.verify({ from: '2026-04-15', to: '2026-05-11' }, undefined)).toMatchObject({
      ...{ ok: true, from: '2026-05-01', to: '2026-05-10', days: 10 },
    })
  })

  it('finds what was changed by hand, and makes it anew', async () => {
    const [teamId = '', other = ''] = await teams(2)
    await beginAt('2026-05-01 12:00Z')
    await insert(teamId, 'cl-1')
    await insert(other, 'cl-2')
    await setClock('2026-05-03 12:00Z')
    await rollUp()
    const days = { from: '2026-05-01', to: '2026-05-03' }
    await sql`UPDATE usage_rollups SET vcpu_seconds = vcpu_seconds + 0.000001 WHERE team_id = ${teamId} AND date = '2026-05-02'`.execute(
      db,
    )
    await sql`DELETE FROM usage_rollups WHERE team_id = ${other} AND period = 'month'`.execute(db)
    await sql`DELETE FROM usage_ledger WHERE capsule_id = 'cl-2'`.execute(db)
    const found = await usage.verify(days, undefined)
    expect(found).toMatchObject({ ok: false, days: 2, strays: ['cl-2'] })
    expect(found.differences.map(({ period, date, team_id: id }) => `${period} ${date} ${id}`).sort()).toEqual(
      [
        ...['2026-05-01', '2026-05-02'].map((date) => `day ${date} ${other}`),
        ...[`day 2026-05-02 ${teamId}`, `month 2026-05-01 ${teamId}`, `month 2026-05-01 ${other}`],
      ].sort(),
    )
    const wrong = found.differences.find(
      ({ date, team_id: id, period }) => date === '2026-05-02' && id === teamId && period === 'day',
    )
    expect(wrong).toMatchObject({
      rolled_up: { vcpu_seconds: '172800.000001' },
      expected: { vcpu_seconds: '172800.000000' },
    })
    expect((await usage.verify(days, other)).differences.every(({ team_id: id }) => id === other)).toBe(true)
    expect(await usage.recompute({ from: '2020-01-01', to: '2020-02-01' }, actor)).toMatchObject({ days: 0 })
    // Another one rolls up at that moment, and is waited for.
    let recomputed: unknown
    const under = await db.transaction().execute(async (tx) => {
      expect(await lockRollUps(tx)).toBeDefined()
      const waiting = usage.recompute(days, actor).then((made) => {
        recomputed = made
      })
      await Promise.race([waiting, delay(1_000)])
      expect(recomputed).toBeUndefined()
      return { waiting }
    })
    await under.waiting
    expect(recomputed).toEqual({ from: '2026-05-01', to: '2026-05-02', days: 2 })
    expect(await usage.verify(days, teamId)).toMatchObject({ ok: true, differences: [] })
    // What the ledger has lost, no sum can bring back: it is said by the capsule that is in none.
    expect(await usage.verify(days, other)).toMatchObject({ differences: [], strays: ['cl-2'] })
    expect(await db.selectFrom('audit_log').select('action').execute()).toEqual([{ action: 'usage.recompute' }])
  })

  it('is forgotten after its time, and the sums after theirs, month by month', async () => {
    const [teamId = ''] = await teams(1)
    await beginAt('2026-03-10 12:00Z')
    await insert(teamId, 'cl-1')
    for (const [at, state] of [
      ['2026-03-20 12:00Z', 'paused'],
      ['2026-04-10 12:00Z', 'running'],
      ['2026-05-01 00:00Z', 'paused'],
    ] as const) {
      await setClock(at)
      await move('cl-1', state)
    }
    await setClock('2026-05-20 12:00Z')
    await rollUp(30, 61)
    expect(await entries()).toHaveLength(2)
    const all = await usage.of(teamId, { from: '2026-03-01', to: '2026-05-20' }, 'day')
    expect(all.points[0]?.date).toBe('2026-03-10')
    expect(await usage.verify({ from: '2026-03-01', to: '2026-05-20' }, undefined)).toMatchObject({
      ...{ ok: true, from: '2026-04-20', to: '2026-05-19', days: 30 },
    })
    await setClock('2026-06-05 12:00Z')
    await rollUp(30, 61)
    expect((await usage.of(teamId, { from: '2026-03-01', to: '2026-05-30' }, 'day')).points[0]?.date).toBe('2026-04-01')
    expect(
      (await usage.of(teamId, { from: '2026-03-01', to: '2026-05-30' }, 'month')).points.map(({ date }) => date),
    ).toEqual(['2026-04-01', '2026-05-01'])
  })

  it('tells how many ran, and the most that did in thirty days', async () => {
    const [teamId = '', other = ''] = await teams(2)
    await beginAt('2026-05-01 07:00Z')
    await insert(teamId, 'cl-1')
    await insert(other, 'cl-9')
    await setClock('2026-05-01 08:00Z')
    await insert(teamId, 'cl-2')
    await setClock('2026-05-01 13:00Z')
    await move('cl-2', 'stopped')
    await setClock('2026-05-03 09:30:00Z')
    await move('cl-1', 'pausing')
    await setClock('2026-05-03 09:30:01Z')
    await move('cl-1', 'paused')
    await setClock('2026-05-03 09:40:10Z')
    await rollUp()
    const month = await usage.stats(teamId, '30d')
    expect(month.current).toEqual({ running_count: 0, vcpus_reserved: 0, memory_mb_reserved: 513 })
    expect(month.peaks).toEqual({ running_count: 2, vcpus: 4, memory_mb: 2050 })
    expect(month.series.labels).toHaveLength(120)
    expect(month.series.labels.at(-1)).toBe('2026-05-03T06:00:00.000Z')
    expect(month.series.running.slice(-10)).toEqual([0, 2, 2, 1, 1, 1, 1, 1, 1, 1])
    const hour = await usage.stats(teamId, '1h')
    expect(hour.series.labels.at(-1)).toBe('2026-05-03T09:40:00.000Z')
    expect(hour.series.running.slice(-22)).toEqual([1, 1, ...Array(20).fill(0)])
    expect(hour.series.memory_mb.at(-1)).toBe(513)
    expect(hour.peaks).toEqual(month.peaks)
    expect((await usage.stats(other, '5m')).series.running).toEqual(Array(100).fill(1))
  })

  const closedUntil = async (): Promise<string> => {
    const { rows } = await sql<{
      day: string
    }>`SELECT (closed_until AT TIME ZONE 'UTC')::date::text AS day FROM usage_state`.execute(db)
    return rows[0]?.day ?? ''
  }
})

function byMonth(days: ReadonlyMap<string, readonly [bigint, bigint, bigint, bigint]>) {
  const months = new Map<string, [bigint, bigint, bigint, bigint]>()
  for (const [key, sums] of days) {
    const month = key.replace(/-\d\d /, '-01 ')
    const [a, b, c, d] = months.get(month) ?? [0n, 0n, 0n, 0n]
    months.set(month, [a + sums[0], b + sums[1], c + sums[2], d + sums[3]])
  }
  return months
}

/** Numbers in [0, 1) that a seed gives again; mulberry32, public domain. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

async function nameOf(db: Db): Promise<string> {
  const { rows } = await sql<{ name: string }>`SELECT current_database() AS name`.execute(db)
  return rows[0]?.name ?? ''
}
