import { capsuleIds, silentLogger } from '@wrenn/base'
import { FakeHost, testPostgresKinds } from '@wrenn/testkit'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Host } from '../../host/host.js'
import { createHostClient } from '../../host/transport.js'
import { insertCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { createTeam } from '../../store/teams.js'
import { pruneTraffic } from '../../store/usage-traffic.js'
import { useDatabases } from '../../testing/databases.js'
import { UsageRollUp } from './roll-up.js'
import { TrafficCollector } from './traffic-collector.js'
import { Usage } from './usage.js'

describe.each(testPostgresKinds())('collecting traffic on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let db: Db
  let fake: FakeHost
  let link: ReturnType<typeof createHostClient>
  let host: Host
  let teamId: string

  beforeEach(async () => {
    await open()
    fake = await FakeHost.start()
    link = createHostClient(fake.address)
    host = new Host(link.client, fake.address)
  })
  afterEach(async () => {
    link.close()
    await fake[Symbol.asyncDispose]()
  })

  async function open(): Promise<void> {
    db = (await fresh()).db
    teamId = await createTeam(db, 'A team')
  }
  const collector = () => new TrafficCollector({ db, host, logger: silentLogger })
  const capsule = async (): Promise<string> => {
    const id = capsuleIds.create()
    await insertCapsule(db, {
      ...{ id, team_id: teamId, template: 'minimal', state: 'running' },
      ...{ vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}' },
      ...{ default_user: '', default_cwd: '', desired_state: 'running' },
    })
    return id
  }
  /** What the host says of a guest from now on. */
  const counts = (capsuleId: string, guestId: string, rx: number, tx: number, ended = false): void => {
    fake.traffic.set(guestId, { capsuleId, guestId, rxBytes: BigInt(rx), txBytes: BigInt(tx), ended })
  }
  const total = async (team: string = teamId, span: object = {}): Promise<[number, number]> => {
    const { total: sums } = await new Usage(db).of(team, span, 'day')
    return [sums.net_rx_bytes, sums.net_tx_bytes]
  }
  const setClock = async (at: string): Promise<void> => {
    await sql`CREATE OR REPLACE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS ${sql.raw(`'SELECT timestamptz ''${at}'''`)}`.execute(
      db,
    )
  }
  const rollUp = async (ledgerDays = 0): Promise<void> =>
    await new UsageRollUp({ db, logger: silentLogger, ledgerDays, rollUpDays: 0 }).roll()

  it('adds what has come since, guest by guest, over pauses and restarts of all', async () => {
    const id = await capsule()
    const one = collector()
    await one.collect()
    expect(await total()).toEqual([0, 0])
    counts(id, 'a', 100, 10)
    await one.collect()
    await one.collect()
    expect(await total()).toEqual([100, 10])
    // What it sent after the last look, until it was paused.
    counts(id, 'a', 150, 17, true)
    counts(id, 'b', 5, 3)
    await one.collect()
    expect(await total()).toEqual([155, 20])
    // Another control plane, which does not know what was noted.
    await collector().collect()
    expect(await total()).toEqual([155, 20])
    expect(fake.traffic.size).toBe(2)
    await one.collect()
    expect([...fake.traffic.keys()]).toEqual(['b'])
    counts(id, 'b', 4, 4)
    await one.collect()
    // A counter that stepped back takes nothing back.
    expect(await total()).toEqual([155, 21])
    counts(id, 'b', 6, 4)
    await one.collect()
    expect(await total()).toEqual([156, 21])
  })

  it('forgets no guest that has ended before it was entered, and passes by capsules that nobody knows', async () => {
    const id = await capsule()
    counts(id, 'a', 100, 10, true)
    counts(capsuleIds.create(), 'nobody', 9, 9, true)
    const one = collector()
    await sql`ALTER TABLE usage_traffic RENAME TO elsewhere`.execute(db)
    await expect(one.collect()).rejects.toThrow()
    await expect(one.collect()).rejects.toThrow()
    expect(fake.traffic.size).toBe(2)
    await sql`ALTER TABLE elsewhere RENAME TO usage_traffic`.execute(db)
    await one.collect()
    expect(await total()).toEqual([100, 10])
    await one.collect()
    expect(fake.traffic.size).toBe(0)
  })

  it('counts for the day on which it was seen, never for one that is closed, and is rolled up and checked with the rest', async () => {
    await setClock('2026-05-30 23:59Z')
    await sql`UPDATE usage_state SET closed_until = '2026-05-30 00:00Z', rolled_until = '2026-05-30', kept_from = '2026-05-30'`.execute(
      db,
    )
    const id = await capsule()
    const one = collector()
    counts(id, 'a', 1_000, 1)
    await one.collect()
    await setClock('2026-05-31 00:02Z')
    counts(id, 'a', 1_500, 2)
    await rollUp()
    await setClock('2026-05-30 23:00Z')
    await one.collect()
    const days = { from: '2026-05-30', to: '2026-06-01' }
    const { points } = await new Usage(db).of(teamId, days, 'day')
    expect(points.map(({ date, net_rx_bytes: rx, net_tx_bytes: tx }) => [date, rx, tx])).toEqual([
      ['2026-05-30', 1_000, 1],
      ['2026-05-31', 500, 1],
    ])
    await setClock('2026-06-01 12:00Z')
    counts(id, 'a', 1_507, 2)
    await one.collect()
    await rollUp()
    const { points: months } = await new Usage(db).of(teamId, days, 'month')
    expect(months.map(({ date, net_rx_bytes: rx }) => [date, rx])).toEqual([
      ['2026-05-01', 1_500],
      ['2026-06-01', 7],
    ])
    expect(await new Usage(db).verify(days, undefined)).toMatchObject({ ok: true, days: 2 })
    await sql`UPDATE usage_rollups SET net_tx_bytes = 3 WHERE date = '2026-05-31' AND period = 'day'`.execute(db)
    const { differences } = await new Usage(db).verify(days, undefined)
    expect(differences.find(({ date }) => date === '2026-05-31')).toMatchObject({
      rolled_up: { net_tx_bytes: '3' },
      expected: { net_tx_bytes: '1' },
    })
  })

  it('counts for the team that has the capsule, also for one that has ended', async () => {
    const id = await capsule()
    const one = collector()
    counts(id, 'a', 10, 0)
    await one.collect()
    await sql`UPDATE capsules SET state = 'stopped' WHERE id = ${id}`.execute(db)
    counts(id, 'a', 12, 0, true)
    await one.collect()
    expect(await total()).toEqual([12, 0])
    expect(await total(await createTeam(db, 'Another'))).toEqual([0, 0])
    const { teams } = await new Usage(db).byTeam({})
    expect(teams).toMatchObject([{ team_id: teamId, net_rx_bytes: 12 }])
  })

  it('is forgotten with the ledger, counters of what still runs excepted', async () => {
    const [running, stopped] = [await capsule(), await capsule()]
    const one = collector()
    counts(running, 'a', 1, 1)
    counts(stopped, 'b', 1, 1, true)
    await one.collect()
    await sql`UPDATE capsules SET state = 'stopped' WHERE id = ${stopped}`.execute(db)
    await sql`UPDATE usage_counters SET grown_at = now() - interval '50 days'`.execute(db)
    await sql`INSERT INTO usage_counters (capsule_id, guest_id, grown_at)
      SELECT capsule_id, 'one of before', now() - interval '60 days' FROM usage_counters WHERE guest_id = 'a'`.execute(
      db,
    )
    await sql`UPDATE usage_traffic SET date = date - 50`.execute(db)
    await sql`UPDATE usage_state SET kept_from = kept_from - 10`.execute(db)
    await pruneTraffic(db)
    const { rows } = await sql<{ guest: string }>`SELECT guest_id AS guest FROM usage_counters`.execute(db)
    expect(rows).toEqual([{ guest: 'a' }])
    expect((await sql`SELECT FROM usage_traffic`.execute(db)).rows).toHaveLength(0)
  })

  it('enters each byte once, whoever collects and whatever fails', async () => {
    const step = fc.record({
      guest: fc.nat({ max: 4 }),
      more: fc.nat({ max: 1_000 }),
      ended: fc.boolean(),
      collectors: fc.nat({ max: 3 }),
      isLost: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        await db.destroy()
        await open()
        fake.traffic.clear()
        const ids = [await capsule(), await capsule()]
        const collectors = [collector(), collector(), collector()]
        const guests = new Map<string, { rx: number; ended: boolean }>()
        let generation = 0
        for (const { guest, more, ended, collectors: count, isLost } of steps) {
          const name = `${guest}-${generation}`
          const known = guests.get(name) ?? { rx: 0, ended: false }
          if (known.ended) generation++
          const now = known.ended ? { rx: more, ended } : { rx: known.rx + more, ended }
          const key = `${guest}-${generation}`
          guests.set(key, now)
          counts(ids[guest % 2] ?? '', key, now.rx, 2 * now.rx, now.ended)
          // Written, and its answer lost: whoever begins anew does not know of it.
          if (isLost) await collector().collect()
          await Promise.all(collectors.slice(0, count).map((each) => each.collect()))
        }
        await collectors[0]?.collect()
        const all = [...guests.values()].reduce((sum, { rx }) => sum + rx, 0)
        expect(await total()).toEqual([all, 2 * all])
      }),
      { numRuns: 8, seed: 20_261_130 },
    )
  }, 120_000)
})
