import { silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { createTeam } from '../../store/teams.js'
import { CallMeter } from './call-meter.js'

let postgres: TestPostgres
let db: Db
let team: string
/** By the clock that the test sets. */
let now = 0

beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url, logger: silentLogger })
  await migrateUp(db)
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  now = 1_000 * 60_000 + 45_000
  team = await createTeam(db, 'callers')
})

const meter = (defaultLimit = 0) => new CallMeter({ db, logger: silentLogger, defaultLimit, now: () => now })
const limit = async (calls: number | null) =>
  await db.updateTable('teams').set({ max_calls_per_min: calls }).where('id', '=', team).execute()
/** How many of `calls` are let through. */
async function passed(one: CallMeter, calls: number): Promise<number> {
  const outcomes = await Promise.allSettled(Array.from({ length: calls }, () => one.count(team)))
  return outcomes.filter(({ status }) => status === 'fulfilled').length
}

describe('calls of a team', () => {
  it('are as many as its limit in each minute of the clock, however many come at once', async () => {
    await limit(5)
    const one = meter()
    expect(await passed(one, 20)).toBe(5)
    await expect(one.count(team)).rejects.toMatchObject({
      code: 'limit_exceeded',
      details: { limit: 'apiCallsPerMin', max: 5, used: 5, retryAfterSec: 15 },
    })
    now += 15_000
    expect(await passed(one, 20)).toBe(5)
  })

  it('are counted with those that other control planes let through', async () => {
    await limit(10)
    const [one, two] = [meter(), meter()]
    expect(await passed(one, 4)).toBe(4)
    expect(await passed(two, 20)).toBe(6)
    expect(await passed(one, 5)).toBe(0)
    expect(await one.calls(team)).toBe(10)
  })

  it('are never more than the limit, also when many control planes let them through at the same moment', async () => {
    await limit(1_000)
    const meters = Array.from({ length: 8 }, () => meter())
    const rounds = Array.from({ length: 10 }, async () => {
      const counts = await Promise.all(meters.map((each) => passed(each, 25)))
      return counts.reduce((sum, count) => sum + count, 0)
    })
    const all = (await Promise.all(rounds)).reduce((sum, count) => sum + count, 0)
    expect(all).toBeLessThanOrEqual(1_000)
    // What one has booked and does not need, the others get.
    for (const each of meters) await each.tell()
    for (const each of meters) await each.tell()
    let rest = 0
    for (const each of meters) rest += await passed(each, 1_000)
    expect(all + rest).toBe(1_000)
    expect(await meters[0]?.calls(team)).toBe(1_000)
  })

  it('that one control plane has booked and does not make, another lets through, at the latest when that one stops', async () => {
    await limit(100)
    const [one, two] = [meter(), meter()]
    // Blocks grow while many come.
    for (let n = 0; n < 40; n++) await one.count(team)
    await one.tell()
    for (let n = 0; n < 20; n++) await one.count(team)
    await one.stop()
    expect(await passed(two, 100)).toBe(40)
    expect(await two.calls(team)).toBe(100)
  })

  it('cost far fewer questions to the database than they are', async () => {
    await limit(100_000)
    const one = meter()
    const asked: string[] = []
    const watched = db.withPlugin({
      transformQuery: ({ node }) => {
        asked.push(node.kind)
        return node
      },
      transformResult: async ({ result }) => result,
    })
    const two = new CallMeter({ db: watched, logger: silentLogger, defaultLimit: 0, now: () => now })
    for (let n = 0; n < 5_000; n++) await two.count(team)
    expect(asked.length).toBeGreaterThan(1)
    expect(asked.length).toBeLessThan(100)
    expect(await one.calls(team)).toBeGreaterThanOrEqual(5_000)
    await two.stop()
    expect(await one.calls(team)).toBe(5_000)
  })

  it('go by a changed limit within a round, also of who is refused now', async () => {
    await limit(1)
    const one = meter()
    expect(await passed(one, 2)).toBe(1)
    await limit(3)
    await one.tell()
    expect(await passed(one, 9)).toBe(2)
    await limit(0)
    await one.tell()
    expect(await passed(one, 9)).toBe(9)
  })

  it('go by the plan where the team has no limit of its own, and by the platform where neither has', async () => {
    await db
      .insertInto('plans')
      .values({ name: `plan-of-${team}`, max_calls_per_min: 2 } as never)
      .execute()
    await db
      .updateTable('teams')
      .set({ plan: `plan-of-${team}` })
      .where('id', '=', team)
      .execute()
    expect(await passed(meter(7), 9)).toBe(2)
    now += 60_000
    await db.updateTable('teams').set({ plan: null }).where('id', '=', team).execute()
    expect(await passed(meter(7), 9)).toBe(7)
  })

  it('are told once each, also when many tell at once and when telling has failed', async () => {
    const one = meter()
    expect(await passed(one, 6)).toBe(6)
    await Promise.all([one.tell(), one.tell(), one.calls(team)])
    expect(await one.calls(team)).toBe(6)
    const lost = openDatabase({ url: postgres.url, logger: silentLogger })
    const two = new CallMeter({ db: lost, logger: silentLogger, defaultLimit: 8, now: () => now })
    expect(await passed(two, 1)).toBe(1)
    await lost.destroy()
    await expect(two.tell()).rejects.toThrow()
    // What cannot be counted is not let through.
    expect(await passed(two, 9)).toBe(0)
  })

  it('of a clock that is behind are none of the minute that others are in', async () => {
    const one = meter()
    now += 60_000
    const two = meter()
    expect(await passed(two, 3)).toBe(3)
    expect(await two.calls(team)).toBe(3)
    now -= 60_000
    expect(await passed(one, 2)).toBe(2)
    await one.tell()
    now += 60_000
    expect(await two.calls(team)).toBe(3)
  })
})
