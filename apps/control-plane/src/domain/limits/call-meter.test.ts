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
    await one.tell()
    expect(await passed(two, 20)).toBe(6)
    await two.tell()
    expect(await one.calls(team)).toBe(10)
    // It hears of the others' when it asks, which refused calls make it do.
    await one.count(team)
    await one.tell()
    expect(await passed(one, 5)).toBe(0)
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
    expect(await passed(two, 9)).toBe(1)
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
