import { silentLogger, waitFor } from '@wrenn/base'
import { type LagoFault, LagoServer, testPostgresKinds } from '@wrenn/testkit'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LagoClient } from '../../lago/index.js'
import { type Db, openDatabase } from '../../store/database.js'
import { findLagoBacklog } from '../../store/lago-events.js'
import { pruneRollUps } from '../../store/usage-roll-ups.js'
import { useDatabases } from '../../testing/databases.js'
import { LagoSender } from './lago-sender.js'
import { rollUp } from './roll-up.js'

const KEY = 'lago-secret-key'
const CODES = ['wrenn_vcpu_seconds', 'wrenn_memory_gib_seconds', 'wrenn_disk_gib_seconds'] as const
const FROM = '2026-01-01'
/** Seconds of vCPUs, MiB-seconds of memory, MiB-seconds of disk. */
type Sums = readonly [vcpu: string, memory: string, disk: string]

describe.each(testPostgresKinds())('a sender of usage on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let databaseUrl: string
  let db: Db
  let lago: LagoServer

  beforeEach(async () => {
    await open()
    lago = await LagoServer.start({ apiKey: KEY, codes: CODES })
  })
  afterEach(async () => {
    await lago[Symbol.asyncDispose]()
  })

  async function open(): Promise<void> {
    const made = await fresh()
    db = made.db
    databaseUrl = made.url
  }
  const senderOn = (own: Db, first: string = FROM): LagoSender => {
    const from = first === 'first start' ? undefined : first
    const config = { url: lago.origin, apiKey: KEY, apiKeyFile: undefined, from }
    return new LagoSender({ db: own, client: new LagoClient(config), from, logger: silentLogger, firstDelayMs: 1 })
  }
  /** As a roll-up writes them: of two templates, in one transaction. */
  const put = async (date: string, teams: Readonly<Record<string, Sums>>): Promise<void> => {
    await db.transaction().execute(async (tx) => {
      await sql`INSERT INTO usage_changed_days VALUES (${date}) ON CONFLICT DO NOTHING`.execute(tx)
      await sql`DELETE FROM usage_rollups WHERE period = 'day' AND date = ${date}`.execute(tx)
      for (const [team, [vcpu, memory, disk]] of Object.entries(teams)) {
        await sql`INSERT INTO usage_rollups VALUES (${team}, 'day', ${date}, 'one', ${vcpu}, ${memory}, 0, 0),
          (${team}, 'day', ${date}, 'two', 0, 0, 7, ${disk})`.execute(tx)
      }
    })
  }
  const totals = (team: string): bigint[] => CODES.map((code) => lago.rules.total(team, code))
  /** Whatever rests, and whoever died while it had the lease: their time has come. */
  const later = async (): Promise<void> => {
    await sql`UPDATE lago_state SET next_at = now(), leased_until = NULL`.execute(db)
    await sql`UPDATE lago_events SET next_at = now()`.execute(db)
  }
  /** Until nothing waits, however often it fails before. */
  const settle = async (sender: LagoSender): Promise<void> =>
    void (await waitFor(
      async () => {
        await later()
        await sender.send().catch(() => {})
        return (await findLagoBacklog(db)).waiting === 0 ? true : undefined
      },
      { timeoutMs: 20_000, intervalMs: 1, what: 'all events to be taken' },
    ))
  const restMs = async (): Promise<number> => {
    const { rows } = await sql<{
      ms: number
    }>`SELECT (extract(epoch FROM next_at - clock_timestamp()) * 1000)::float8 AS ms
      FROM lago_state`.execute(db)
    return rows[0]?.ms ?? 0
  }

  it('tells each sum once, the oldest day first, by ids that stay', async () => {
    await put('2026-01-02', { 'team-a': ['2.000001', '1024', '0'] })
    await put('2026-01-01', { 'team-a': ['1', '1', '2048'], 'team-b': ['0.5', '0', '0'] })
    await senderOn(db).send()
    expect(totals('team-a')).toEqual([3_000_001n, 1_000_977n, 2_000_000n])
    expect(totals('team-b')).toEqual([500_000n, 0n, 0n])
    expect(lago.calls).toEqual([6])
    const { rows } = await sql<{ text: string }>`SELECT date || ' ' || team_id || ' ' || metric || ' ' || value AS text
      FROM lago_events ORDER BY seq`.execute(db)
    expect(rows.map(({ text }) => text)).toEqual([
      '2026-01-01 team-a disk_gib_seconds 2.000000',
      '2026-01-01 team-a memory_gib_seconds 0.000977',
      '2026-01-01 team-a vcpu_seconds 1.000000',
      '2026-01-01 team-b vcpu_seconds 0.500000',
      '2026-01-02 team-a memory_gib_seconds 1.000000',
      '2026-01-02 team-a vcpu_seconds 2.000001',
    ])
    await senderOn(db).send()
    expect(lago.calls).toHaveLength(1)
    expect(lago.rules.ignored).toBe(0)
  })

  it('sends a hundred at a time', async () => {
    const teams = Array.from({ length: 84 }, (_, index): [string, Sums] => [`team-${index}`, ['1', '1024', '2048']])
    await put('2026-01-01', Object.fromEntries(teams))
    await senderOn(db).send()
    expect(lago.calls).toEqual([100, 100, 52])
    for (const [team] of teams) expect(totals(team)).toEqual([1_000_000n, 1_000_000n, 2_000_000n])
  })

  it('tells the difference when a day is made anew, also when nothing is left of it', async () => {
    const sender = senderOn(db)
    await put('2026-01-01', { 'team-a': ['10', '1024', '1024'], 'team-b': ['5', '0', '0'] })
    await sender.send()
    await put('2026-01-01', { 'team-a': ['7.5', '1024', '3072'] })
    await sender.send()
    expect(totals('team-a')).toEqual([7_500_000n, 1_000_000n, 3_000_000n])
    expect(totals('team-b')).toEqual([0n, 0n, 0n])
    expect(lago.calls).toEqual([4, 3])
    // The same again is no news.
    await put('2026-01-01', { 'team-a': ['7.5', '1024', '3072'] })
    await sender.send()
    expect(lago.calls).toHaveLength(2)
  })

  it('tells what the roll-up of a day writes, and what is put right later', async () => {
    const entry = (end: string) => sql`INSERT INTO usage_ledger
      (capsule_id, team_id, template, state, vcpus, memory_mib, disk_size_mib, began_at, ended_at)
      VALUES ('cl-1', 'team-a', 'minimal', 'running', 2, 512, 1024, '2026-01-05 10:00:00Z', ${`2026-01-05 ${end}Z`})`
    const sender = senderOn(db)
    await entry('10:00:30').execute(db)
    await db.transaction().execute((tx) => rollUp(tx, '2026-01-05'))
    await sender.send()
    expect(totals('team-a')).toEqual([60_000_000n, 15_000_000n, 30_000_000n])
    await entry('10:01:00').execute(db)
    await db.transaction().execute((tx) => rollUp(tx, '2026-01-05'))
    await sender.send()
    expect(totals('team-a')).toEqual([180_000_000n, 45_000_000n, 90_000_000n])
  })

  it('tells what capsules received and sent', async () => {
    const codes = ['wrenn_net_rx_bytes', 'wrenn_net_tx_bytes']
    await lago[Symbol.asyncDispose]()
    lago = await LagoServer.start({ apiKey: KEY, codes })
    await put('2026-01-01', { 'team-a': ['0', '0', '0'] })
    await sql`UPDATE usage_rollups SET net_rx_bytes = 5000000000, net_tx_bytes = 7 WHERE template = 'one'`.execute(db)
    await senderOn(db).send()
    expect(codes.map((code) => lago.rules.total('team-a', code))).toEqual([5_000_000_000_000_000n, 7_000_000n])
  })

  it('tells what a day that waits to be told of has become while it was made anew', async () => {
    await put('2026-01-05', { 'team-a': ['1', '0', '0'] })
    await sql`INSERT INTO usage_ledger (capsule_id, team_id, template, state, vcpus, memory_mib, disk_size_mib, began_at, ended_at)
      VALUES ('cl-1', 'team-a', 'minimal', 'running', 2, 512, 1024, '2026-01-05 10:00:00Z', '2026-01-05 10:00:30Z')`.execute(
      db,
    )
    const anew = await db.startTransaction().execute()
    await rollUp(anew, '2026-01-05')
    await senderOn(db).send()
    await anew.commit().execute()
    await senderOn(db).send()
    expect(totals('team-a')).toEqual([60_000_000n, 15_000_000n, 30_000_000n])
  })

  it('tells of days from its first start on, or from the day that is set', async () => {
    const { rows } = await sql<{ today: string }>`SELECT (now() AT TIME ZONE 'UTC')::date::text AS today`.execute(db)
    const today = rows[0]?.today ?? ''
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    await put('2026-02-01', { 'team-a': ['2', '0', '0'] })
    await put(today, { 'team-a': ['4', '0', '0'] })
    await senderOn(db, 'first start').send()
    // A control plane that begins on another day.
    await sql`UPDATE usage_state SET closed_until = now() + interval '3 days'`.execute(db)
    await senderOn(db, 'first start').send()
    expect(totals('team-a')[0]).toBe(4_000_000n)
    await senderOn(db, '2026-02-01').send()
    expect(totals('team-a')[0]).toBe(6_000_000n)
  })

  it('takes nothing back of days that are forgotten', async () => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    const sender = senderOn(db)
    await sender.send()
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    await sql`CREATE OR REPLACE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2026-06-01' $$`.execute(
      db,
    )
    await pruneRollUps(db, 30)
    await sender.send()
    expect(totals('team-a')[0]).toBe(1_000_000n)
    expect((await sql`SELECT FROM lago_events`.execute(db)).rows).toHaveLength(0)
  })

  it('tells of days that are forgotten what Lago has not taken of them yet', async () => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    lago.faults.push({ status: 502, body: '<html>' })
    await senderOn(db).send()
    await sql`CREATE OR REPLACE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2026-06-01' $$`.execute(
      db,
    )
    await pruneRollUps(db, 30)
    await settle(senderOn(db))
    expect(totals('team-a')[0]).toBe(1_000_000n)
    await pruneRollUps(db, 30)
    expect((await sql`SELECT FROM lago_events`.execute(db)).rows).toHaveLength(0)
  })

  it('rests as long as Lago asks, and lets no other control plane go on meanwhile', async () => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    lago.faults.push({ status: 429, headers: { 'retry-after': '30' }, body: {} })
    await senderOn(db).send()
    expect(await restMs()).toBeGreaterThan(20_000)
    await senderOn(db).send()
    expect(lago.calls).toHaveLength(1)
    expect(await findLagoBacklog(db)).toMatchObject({ waiting: 1, refused: 0, problem: expect.stringContaining('429') })
    await settle(senderOn(db))
    expect(totals('team-a')[0]).toBe(1_000_000n)
    expect(await findLagoBacklog(db)).toMatchObject({ waiting: 0, oldestAt: null, problem: null })
  })

  it.each([
    ['the key is not known', { status: 401, body: { status: 401, error: 'Unauthorized' } }],
    ['the address is wrong', { status: 404, body: '<html>' }],
    ['it is down', { status: 502, body: '<html>' }],
  ] as const)('refuses no event when %s, and says why it rests', async (_, fault) => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'], 'team-b': ['1', '0', '0'] })
    lago.faults.push(fault)
    await senderOn(db).send()
    const { waiting, refused, problem } = await findLagoBacklog(db)
    expect({ waiting, refused }).toEqual({ waiting: 2, refused: 0 })
    expect(problem).toContain(`Lago answered ${fault.status}`)
    expect(problem).not.toContain(KEY)
  })

  it('lets an event that is refused hold up no other, and tries it again', async () => {
    const sums = Object.fromEntries(
      ['a', 'b', 'c', 'd'].map((team): [string, Sums] => [`team-${team}`, ['1', '0', '0']]),
    )
    await put('2026-01-01', sums)
    lago.rules.expression = ({ external_subscription_id: team }) =>
      team === 'team-b' ? 'Variable: x not found' : undefined
    await senderOn(db).send()
    expect(['a', 'b', 'c', 'd'].map((team) => totals(`team-${team}`)[0])).toEqual([
      1_000_000n,
      0n,
      1_000_000n,
      1_000_000n,
    ])
    expect(await findLagoBacklog(db)).toMatchObject({
      waiting: 1,
      refused: 1,
      problem: null,
      reason: 'Lago refuses it: Variable: x not found',
    })
    // Not before its time, and then before nobody who is new.
    await put('2026-01-02', { 'team-c': ['1', '0', '0'] })
    await senderOn(db).send()
    expect(lago.calls).toEqual([4, 3, 1])
    lago.rules.expression = () => undefined
    await settle(senderOn(db))
    expect(totals('team-b')[0]).toBe(1_000_000n)
  })

  it('finds one that Lago does not name by sending halves', async () => {
    const unclear = { status: 400, body: { status: 400, error: 'BadRequest' } }
    const sums = Object.fromEntries([1, 2, 3, 4, 5].map((team): [string, Sums] => [`team-${team}`, ['1', '0', '0']]))
    await put('2026-01-01', sums)
    // 12345, 123, 12 is taken, 3, then 45.
    lago.faults.push(unclear, unclear, undefined, unclear)
    await senderOn(db).send()
    expect(lago.calls).toEqual([5, 3, 2, 1, 2])
    expect([1, 2, 3, 4, 5].map((team) => totals(`team-${team}`)[0])).toEqual([
      1_000_000n,
      1_000_000n,
      0n,
      1_000_000n,
      1_000_000n,
    ])
    expect(await findLagoBacklog(db)).toMatchObject({ refused: 1, reason: 'Lago answered 400: BadRequest' })
  })

  it('does not try each event when Lago takes nothing at all', async () => {
    const sums = Object.fromEntries(
      Array.from({ length: 50 }, (_, team): [string, Sums] => [`team-${team}`, ['1', '0', '0']]),
    )
    await put('2026-01-01', sums)
    lago.faults.push(...Array.from({ length: 1000 }, (): LagoFault => ({ status: 400, body: '' })))
    await senderOn(db).send()
    expect(lago.calls.length).toBeLessThan(15)
    lago.faults.length = 0
    await settle(senderOn(db))
    for (const team of Object.keys(sums)) expect(totals(team)[0]).toBe(1_000_000n)
  })

  it('counts once what its sender could not note because it was killed', async () => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'], 'team-b': ['2', '0', '0'] })
    const own = openDatabase({ url: databaseUrl })
    const { rows } = await sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`.execute(db)
    lago.onTaken = async () => {
      await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid <> ${rows[0]?.pid ?? 0}`.execute(db)
      await own.destroy()
    }
    await expect(senderOn(own).send()).rejects.toThrow()
    lago.onTaken = () => {}
    expect(lago.rules.size).toBe(2)
    expect((await findLagoBacklog(db)).waiting).toBe(2)
    // Its time is not over.
    await senderOn(db).send()
    expect(lago.calls).toEqual([2])
    await put('2026-01-02', { 'team-a': ['4', '0', '0'] })
    await settle(senderOn(db))
    expect([totals('team-a')[0], totals('team-b')[0]]).toEqual([5_000_000n, 2_000_000n])
    expect(lago.calls).toEqual([2, 3, 1])
  })

  it('never sends while another one does; one whose time was over stops', async () => {
    const sums = Object.fromEntries(
      Array.from({ length: 150 }, (_, team): [string, Sums] => [`team-${team}`, ['1', '0', '0']]),
    )
    await put('2026-01-01', sums)
    const other = openDatabase({ url: databaseUrl })
    try {
      let isOver = false
      lago.onTaken = async () => {
        if (isOver) return
        isOver = true
        await senderOn(other).send()
        expect(lago.calls).toEqual([100])
        // As after a long stop of its machine.
        await sql`UPDATE lago_state SET leased_until = now() - interval '1 second'`.execute(db)
        await senderOn(other).send()
      }
      await senderOn(db).send()
      // The other one sent the first hundred again, which Lago knew, then the rest.
      expect(lago.calls).toEqual([100, 100, 50])
      expect(lago.rules.size).toBe(150)
      expect((await findLagoBacklog(db)).waiting).toBe(0)
    } finally {
      await other.destroy()
    }
  })

  it('stops at once, and leaves the rest to others', async () => {
    await put('2026-01-01', { 'team-a': ['1', '0', '0'] })
    const config = { url: lago.origin, apiKey: KEY, apiKeyFile: undefined, from: FROM }
    const sender = new LagoSender({ db, client: new LagoClient(config), from: FROM, logger: silentLogger })
    const stopped = new Promise<void>((resolve, reject) => {
      lago.onTaken = () => void sender.stop().then(resolve, reject)
    })
    sender.start()
    await stopped
    await senderOn(db).send()
    await settle(senderOn(db))
    expect(totals('team-a')[0]).toBe(1_000_000n)
  })

  it.each(['postgres', 'clickhouse'] as const)(
    'leaves each event exactly once with a Lago on %s, whatever fails',
    async (store) => {
      const faults: readonly LagoFault[] = [
        ...['cut before', 'cut after', 'cut after'],
        ...[500, 503, 401, 404].map((status) => ({ status, body: '' })),
        ...[400, 422].map((status) => ({ status, body: { status, error: 'x' } })),
        { status: 429, headers: { 'x-ratelimit-reset': '1' }, body: '' },
      ] as readonly LagoFault[]
      const day = fc.record({
        date: fc.constantFrom('2026-01-01', '2026-01-02', '2026-01-03'),
        teams: fc.uniqueArray(fc.integer({ min: 0, max: 70 }), { minLength: 1, maxLength: 60 }),
        vcpu: fc.integer({ min: 0, max: 10_000_000 }),
        memory: fc.integer({ min: 0, max: 10_000_000 }),
      })
      const step = fc.record({
        day,
        faults: fc.array(fc.option(fc.constantFrom(...faults), { nil: undefined }), { maxLength: 5 }),
        isKilled: fc.boolean(),
      })
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), async (steps) => {
          await db.destroy()
          await open()
          await lago[Symbol.asyncDispose]()
          lago = await LagoServer.start({ apiKey: KEY, codes: CODES, store })
          const days = new Map<string, Map<string, Sums>>()
          for (const each of steps) {
            const { date, teams, vcpu, memory } = each.day
            const sums = new Map(
              teams.map((team): [string, Sums] => [
                `team-${team}`,
                [`${(vcpu * (team + 1)) / 1_000_000}`, `${memory}`, '512'],
              ]),
            )
            days.set(date, sums)
            await put(date, Object.fromEntries(sums))
            lago.faults.push(...each.faults)
            const own = openDatabase({ url: databaseUrl })
            lago.onTaken = each.isKilled ? () => own.destroy() : () => {}
            await Promise.all([
              senderOn(own)
                .send()
                .catch(() => {}),
              senderOn(db).send(),
            ])
            if (!each.isKilled) await own.destroy()
            await later()
          }
          lago.onTaken = () => {}
          await settle(senderOn(db))
          const all = [...days.values()]
          for (let team = 0; team <= 70; team++) {
            const of = all.flatMap((sums) => sums.get(`team-${team}`) ?? [])
            const sum = (index: number, divisor: number): bigint =>
              of.reduce(
                (total, _, place) =>
                  place % 3 === index ? total + BigInt(Math.round((Number(of[place]) / divisor) * 1e6)) : total,
                0n,
              )
            expect(totals(`team-${team}`)).toEqual([sum(0, 1), sum(1, 1024), sum(2, 1024)])
          }
          expect(lago.rules.ignored).toBe(0)
          for (const count of lago.calls) expect(count).toBeLessThanOrEqual(100)
        }),
        { numRuns: 6, seed: 20_261_130 },
      )
    },
    120_000,
  )
})
