import { capsuleIds, silentLogger } from '@wrenn/base'
import { FakeHost, type FakePoint, testPostgresKinds } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Host } from '../../host/host.js'
import { createHostClient } from '../../host/transport.js'
import { insertCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { insertRolledUp } from '../../store/metrics.js'
import type { CapsuleRow } from '../../store/schema.js'
import { createTeam } from '../../store/teams.js'
import { useDatabases } from '../../testing/databases.js'
import { MetricsCollector } from './collector.js'
import { CapsuleHistory } from './history.js'
import { MetricsSweeper } from './sweeper.js'

/** Begin of an hour a day ago and more of the clock's, so that the host's clock is what counts. */
const BEGIN = 1_700_002_800
const HOUR = 3_600

describe.each(testPostgresKinds())('collecting metrics on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let db: Db
  let fake: FakeHost
  let link: ReturnType<typeof createHostClient>
  let host: Host

  beforeEach(async () => {
    db = (await fresh()).db
    fake = await FakeHost.start()
    link = createHostClient(fake.address)
    host = new Host(link.client, fake.address)
  })
  afterEach(async () => {
    link.close()
    await fake[Symbol.asyncDispose]()
  })

  const collector = () => new MetricsCollector({ db, host, logger: silentLogger })
  const capsule = async (): Promise<CapsuleRow> =>
    await insertCapsule(db, {
      ...{ id: capsuleIds.create(), team_id: await createTeam(db, 'A team'), template: 'minimal', state: 'paused' },
      ...{ vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}' },
      ...{ default_user: '', default_cwd: '', desired_state: 'running' },
    })
  /** A look that is told from others by what it says. */
  const look = (atSec: number): FakePoint => ({
    ...{ atSec: BigInt(atSec), cpuPct: (atSec / 5) % 100, memBytes: BigInt(atSec), diskBytes: 4096n },
    ...{ netRxBytes: 10n, netTxBytes: 1n },
  })
  /** The host has sampled `ids` up to a time, and keeps the last ten minutes of it. */
  const sampled = (ids: readonly string[], fromSec: number, toSec: number): void => {
    const times = Array.from({ length: (toSec - fromSec) / 5 }, (_, index) => fromSec + index * 5)
    const kept = times.filter((atSec) => atSec >= toSec - 600)
    for (const id of ids) fake.used.set(id, kept.map(look))
    fake.usedUntilSec = toSec
  }
  const counts = async () => {
    const { rows } = await sql<{ tier: number; rows: number; points: number }>`SELECT tier, count(*) AS rows,
      sum(octet_length(points) / 30)::bigint AS points FROM capsule_metrics GROUP BY tier ORDER BY tier`.execute(db)
    return rows.map(({ tier, rows, points }) => [tier, rows, points])
  }
  const tierOf = async (row: CapsuleRow, tier: number) =>
    await db
      .selectFrom('capsule_metrics')
      .select(['at', 'points'])
      .where('capsule_seq', '=', row.seq)
      .where('tier', '=', tier)
      .orderBy('at')
      .execute()

  it('keeps each look once, however often and by however many it is collected', async () => {
    const rows = [await capsule(), await capsule()]
    const ids = rows.map(({ id }) => id)
    sampled(ids, BEGIN, BEGIN + 150)
    const [one, other] = [collector(), collector()]
    await Promise.all([one.collect(), other.collect()])
    expect(await counts()).toEqual([[0, 20, 60]])
    sampled(ids, BEGIN, BEGIN + 300)
    await Promise.all([one.collect(), other.collect(), collector().collect()])
    await one.collect()
    expect(await counts()).toEqual([
      [0, 40, 120],
      [1, 2, 20],
    ])
  })

  it('leaves capsules of another host alone, however far the clock of this one is', async () => {
    const collectorOf = (joinedId: string) =>
      new MetricsCollector({ db, host: new Host(link.client, fake.address, joinedId), logger: silentLogger })
    const capsuleOn = async (id: string): Promise<CapsuleRow> => {
      const seen = { address: id, agent_version: '1', engine: 'fake', last_seen_at: new Date() }
      await db
        .insertInto('hosts')
        .values({ id, ...seen })
        .execute()
      const row = await capsule()
      await db.updateTable('capsules').set({ host_id: id }).where('id', '=', row.id).execute()
      return row
    }
    const [here, there] = [await capsuleOn('host-a'), await capsuleOn('host-b')]
    sampled([here.id, there.id], BEGIN, BEGIN + 285)
    await collectorOf('host-b').collect()
    expect(await counts()).toEqual([[0, 19, 57]])
    sampled([here.id], BEGIN, BEGIN + 10 * HOUR)
    await collectorOf('host-a').collect()
    // Its last window comes yet: it is neither rolled up without that nor forgotten.
    expect([(await tierOf(there, 0)).length, await tierOf(there, 1)]).toEqual([19, []])
  })

  it('is forgotten by its age once the host of its capsules was removed, and only then', async () => {
    const seen = { agent_version: '1', engine: 'fake', last_seen_at: new Date() }
    const nowSec = Math.floor(Date.now() / 1000)
    const recent = nowSec - (nowSec % 3_600)
    const measured = async (id: string): Promise<CapsuleRow> => {
      await db
        .insertInto('hosts')
        .values({ id, address: id, ...seen })
        .execute()
      const row = await capsule()
      await db.updateTable('capsules').set({ host_id: id }).where('id', '=', row.id).execute()
      for (const tier of [0, 1, 2])
        await insertRolledUp(
          db,
          tier,
          [BEGIN, recent].map((atSec) => ({ seq: row.seq, atSec, points: Buffer.alloc(30) })),
        )
      return row
    }
    const [here, gone] = [await measured('host-here'), await measured('host-gone')]
    await db.updateTable('hosts').set({ removed_at: sql<Date>`now()` }).where('id', '=', 'host-gone').execute()
    await new MetricsSweeper({ db, logger: silentLogger }).sweep()
    const left = async (row: CapsuleRow, tier: number) => (await tierOf(row, tier)).map(({ at }) => at)
    for (const tier of [0, 1, 2]) expect(await left(here, tier)).toEqual([BEGIN, recent])
    expect(await left(gone, 2)).toEqual([recent])
    expect(await left(gone, 0)).not.toContain(BEGIN)
  })

  it('passes by capsules that the database does not know', async () => {
    sampled([capsuleIds.create(), (await capsule()).id], BEGIN, BEGIN + 15)
    await collector().collect()
    expect(await counts()).toEqual([[0, 1, 3]])
  })

  it('rolls up what has passed, forgets what is old, and comes to the same in one go as in many', async () => {
    const row = await capsule()
    const one = collector()
    const end = BEGIN + 27 * HOUR
    for (let toSec = BEGIN + 600; toSec <= end; toSec += 600) {
      sampled([row.id], BEGIN, toSec)
      await one.collect()
    }
    expect(await counts()).toEqual([
      // Ten minutes and a window, two hours and five minutes, a day and an hour.
      [0, 41, 123],
      [1, 25, 250],
      [2, 25, 300],
    ])
    const [first] = await tierOf(row, 2)
    expect(first?.at).toBe(end - 25 * HOUR)
    // Received in the first five minutes: sixty looks.
    expect(first?.points.readUIntBE(18, 6)).toBe(600)
    expect(first?.points.readUInt8(1)).toBe(60)
  }, 120_000)

  it('rolls up later what nobody could when it was time, before it is forgotten', async () => {
    const row = await capsule()
    sampled([row.id], BEGIN, BEGIN + 600)
    await collector().collect()
    fake.used.clear()
    fake.usedUntilSec = BEGIN + 5 * HOUR
    await collector().collect()
    expect(await counts()).toEqual([[2, 1, 2]])
    fake.usedUntilSec = BEGIN + 40 * HOUR
    await collector().collect()
    expect(await counts()).toEqual([])
  })

  it('begins anew with a host that has lost its samples or whose clock was set back', async () => {
    const row = await capsule()
    const one = collector()
    sampled([row.id], BEGIN + 300, BEGIN + 600)
    await one.collect()
    sampled([row.id], BEGIN, BEGIN + 30)
    await one.collect()
    await one.collect()
    expect(await counts()).toContainEqual([0, 22, 66])
  })

  it('goes with its capsule', async () => {
    const row = await capsule()
    sampled([row.id], BEGIN, BEGIN + 600)
    await collector().collect()
    await db.deleteFrom('capsules').where('id', '=', row.id).execute()
    expect(await counts()).toEqual([])
  })

  it('fails without a trace while the host is silent, and goes on where it was', async () => {
    const row = await capsule()
    const one = collector()
    sampled([row.id], BEGIN, BEGIN + 30)
    await one.collect()
    await fake.stop()
    await expect(one.collect()).rejects.toMatchObject({ code: 'host_unavailable' })
    await fake.start()
    sampled([row.id], BEGIN, BEGIN + 60)
    await one.collect()
    expect(await counts()).toEqual([[0, 4, 12]])
  })

  describe('a history', () => {
    /** The last whole hour, so that what is read is of the time before now. */
    const hour = () => Math.floor(Date.now() / 1000 / HOUR) * HOUR - HOUR
    const read = async (row: CapsuleRow, fromSec: number, toSec?: number) =>
      await new CapsuleHistory({ db, host }).read(row, { fromSec, ...(toSec === undefined ? {} : { toSec }) })

    it('is whole in every resolution, whatever has been rolled up of it', async () => {
      const row = await capsule()
      const one = collector()
      const begin = hour() - HOUR
      const end = begin + HOUR + 1_500
      for (let toSec = begin + 300; toSec <= end - 90; toSec += 300) {
        sampled([row.id], begin, toSec)
        await one.collect()
      }
      sampled([row.id], begin, end - 90)
      await one.collect()
      const day = await read(row, begin)
      expect(day.stepSec).toBe(300)
      expect(day.points.map(({ atSec }) => atSec)).toEqual(
        Array.from({ length: 17 }, (_, index) => begin + index * 300),
      )
      const looks = day.points.reduce((sum, { samples }) => sum + samples, 0)
      expect(looks).toBe((HOUR + 1_500 - 90) / 5)
      expect(day.points.reduce((sum, { netRxBytes = 0 }) => sum + netRxBytes, 0)).toBe(looks * 10)
    })

    it('has gaps where the capsule slept, and ends where it is asked to', async () => {
      const row = await capsule()
      const now = Math.floor(Date.now() / 15_000) * 15
      const asleep = (atSec: bigint) => Number(atSec) >= now - 200 && Number(atSec) < now - 100
      sampled([row.id], now - 300, now)
      fake.used.set(row.id, fake.used.get(row.id)?.filter(({ atSec }) => !asleep(atSec)) ?? [])
      await collector().collect()
      const { stepSec, points } = await read(row, now - 300, now - 50)
      expect(stepSec).toBe(5)
      const times = points.map(({ atSec }) => atSec - now)
      expect([times.length, times[0], times.at(-1)]).toEqual([30, -300, -55])
      expect(times.filter((time) => time >= -200 && time < -100)).toEqual([])
    })

    it('has the last seconds from the host, also of a capsule that sleeps since, and does without them when that is silent', async () => {
      const row = await capsule()
      const now = Math.floor(Date.now() / 15_000) * 15
      sampled([row.id], now - 60, now - 30)
      await collector().collect()
      sampled([row.id], now - 60, now)
      const times = async () => (await read(row, now - 60)).points.map(({ atSec }) => atSec - now)
      expect(await times()).toEqual(Array.from({ length: 12 }, (_, index) => index * 5 - 60))
      await fake.stop()
      expect(await times()).toEqual([-60, -55, -50, -45, -40, -35])
    })
  })
})
