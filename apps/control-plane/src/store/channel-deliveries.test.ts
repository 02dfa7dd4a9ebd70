import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { giveUpExcess, pruneExcess, pruneOrphans, recordAttempts, requeueDead } from './channel-deliveries.js'
import { addChannel, dropChannel, newChannelId, takeChannels } from './channels.js'
import { type Db, migrateUp, openDatabase } from './database.js'
import type { ChannelRow, DeliveryRow } from './schema.js'
import { createTeam } from './teams.js'

let postgres: TestPostgres
let db: Db
let teamId: string
beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url })
  await migrateUp(db)
}, 90_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
}, 30_000)
beforeEach(async () => {
  await db.deleteFrom('channel_deliveries').execute()
  await db.deleteFrom('channels').execute()
  teamId = await createTeam(db, 'Team')
})

const ascending = (one: number, other: number): number => one - other
let named = 0
async function channel(ofTeam = teamId): Promise<ChannelRow> {
  const id = newChannelId()
  const given = { id, teamId: ofTeam, name: `channel ${named++}`, config: '', target: 'x', events: ['*'] }
  const added = await addChannel(db, { ...given, provider: 'webhook' })
  if (added === undefined) throw new Error('its name is its own')
  return added
}
async function deliver(channelId: string, state: DeliveryRow['state'], count: number): Promise<number[]> {
  const { rows } = await sql<{ seq: number }>`INSERT INTO channel_deliveries
      (channel_id, type, resource_id, lane, at, data, state, ended_at)
    SELECT ${channelId}, 'member.role', 'usr-1', 'usr-1', now(), '{}', ${state},
      CASE WHEN ${state}::text = 'pending' THEN NULL ELSE now() END
    FROM generate_series(1, ${count}::int) RETURNING seq`.execute(db)
  return rows.map(({ seq }) => seq).sort(ascending)
}
async function seqs(channelId: string, state: DeliveryRow['state']): Promise<number[]> {
  const rows = await db
    .selectFrom('channel_deliveries')
    .select('seq')
    .where('channel_id', '=', channelId)
    .where('state', '=', state)
    .orderBy('seq')
    .execute()
  return rows.map(({ seq }) => seq)
}
const attempt = (seq: number, state: DeliveryRow['state']) =>
  ({ seq, state, reason: 'said', request: { method: 'POST', url: '', headers: {}, body: '' }, answer: null }) as const

describe('deliveries', () => {
  it('of a channel that is deleted are forgotten in parts, and those of others stay', async () => {
    const [gone, other] = [await channel(), await channel()]
    for (const { id } of [gone, other]) await deliver(id, 'pending', 5)
    await db.transaction().execute((tx) => dropChannel(tx, gone.id))
    expect(await seqs(gone.id, 'pending')).toHaveLength(5)
    const parts = []
    for (let part = 0; part < 3; part++) parts.push(await pruneOrphans(db, 3))
    expect(parts).toEqual([3, 2, 0])
    expect(await seqs(gone.id, 'pending')).toEqual([])
    expect(await seqs(other.id, 'pending')).toHaveLength(5)
  })

  it('that were given up wait again in parts, the oldest first', async () => {
    const { id } = await channel()
    const dead = await deliver(id, 'dead', 5)
    await deliver(id, 'delivered', 2)
    expect((await requeueDead(db, id, { after: 0, limit: 3 })).sort(ascending)).toEqual(dead.slice(0, 3))
    expect(await seqs(id, 'pending')).toEqual(dead.slice(0, 3))
    expect((await requeueDead(db, id, { after: dead[2] ?? 0, limit: 3 })).sort(ascending)).toEqual(dead.slice(3))
    expect(await seqs(id, 'delivered')).toHaveLength(2)
  })

  it('are noted whatever their order, and what has ended meanwhile stays as it is', async () => {
    const { id } = await channel()
    const waiting = await deliver(id, 'pending', 3)
    const [ended = 0] = await deliver(id, 'dead', 1)
    const noted = [...waiting, ended].reverse().map((seq) => attempt(seq, seq === waiting[0] ? 'pending' : 'delivered'))
    await recordAttempts(db, noted)
    expect(await seqs(id, 'pending')).toEqual(waiting.slice(0, 1))
    expect(await seqs(id, 'delivered')).toEqual(waiting.slice(1))
    const rows = await db.selectFrom('channel_deliveries').selectAll().orderBy('seq').execute()
    expect(rows.map(({ attempts, reason }) => [attempts, reason])).toEqual([
      ...waiting.map(() => [1, 'said']),
      [0, null],
    ])
    expect(rows[0]?.request).toMatchObject({ method: 'POST' })
  })

  it('are noted and had wait again at once, and neither waits for the other for ever', async () => {
    const { id } = await channel()
    const all = await deliver(id, 'pending', 400)
    for (let round = 0; round < 10; round++) {
      const state = round % 2 === 0 ? 'dead' : 'pending'
      await Promise.all([
        recordAttempts(db, all.map((seq) => attempt(seq, state)).reverse()),
        requeueDead(db, id, { after: 0, limit: 400 }),
        recordAttempts(
          db,
          all.map((seq) => attempt(seq, state)),
        ),
      ])
    }
    expect((await seqs(id, 'pending')).length + (await seqs(id, 'dead')).length).toBe(400)
  })

  it('beyond what a channel keeps are given up and forgotten, the oldest first', async () => {
    const [much, little] = [await channel(), await channel()]
    const waiting = await deliver(much.id, 'pending', 8)
    await deliver(little.id, 'pending', 5)
    const parts = []
    for (let part = 0; part < 3; part++) parts.push(await giveUpExcess(db, 5, 2))
    expect(parts).toEqual([2, 1, 0])
    expect(await seqs(much.id, 'dead')).toEqual(waiting.slice(0, 3))
    expect(await seqs(much.id, 'pending')).toEqual(waiting.slice(3))
    expect(await seqs(little.id, 'pending')).toHaveLength(5)
    const { reason } = await db
      .selectFrom('channel_deliveries')
      .select('reason')
      .where('state', '=', 'dead')
      .limit(1)
      .executeTakeFirstOrThrow()
    expect(reason).toContain('More than 5 events waited')
    const delivered = await deliver(much.id, 'delivered', 4)
    expect([await pruneExcess(db, 5, 100), await pruneExcess(db, 5, 100)]).toEqual([2, 0])
    expect(await seqs(much.id, 'dead')).toEqual(waiting.slice(2, 3))
    expect(await seqs(much.id, 'delivered')).toEqual(delivered)
    expect(await seqs(much.id, 'pending')).toHaveLength(5)
  })
})

describe('channels', () => {
  it('are taken of each team in turn no more than it may have at a time', async () => {
    const other = await createTeam(db, 'Other')
    for (const team of [teamId, teamId, teamId, teamId, teamId, other]) {
      await deliver((await channel(team)).id, 'pending', 1)
    }
    const take = async (limit: number): Promise<(string | undefined)[]> =>
      (await takeChannels(db, { limit, perTeam: 3 }, 60_000)).map(({ team_id }) => team_id)
    expect((await take(2)).length).toBe(2)
    await take(10)
    const leased = await db.selectFrom('channels').select('team_id').where('leased_until', 'is not', null).execute()
    expect(leased.map(({ team_id }) => team_id).sort()).toEqual([teamId, teamId, teamId, other].sort())
    expect(await take(10)).toEqual([])
    await db.updateTable('channels').set({ leased_until: null }).where('team_id', '=', teamId).execute()
    expect(await take(10)).toEqual([teamId, teamId, teamId])
  })

  it('are taken by one of several that look at once', async () => {
    for (let each = 0; each < 12; each++) await deliver((await channel()).id, 'pending', 1)
    const looks = Array.from({ length: 6 }, () => takeChannels(db, { limit: 4, perTeam: 100 }, 60_000))
    const taken = (await Promise.all(looks)).flat().map(({ id }) => id)
    expect(new Set(taken).size).toBe(taken.length)
    while ((await takeChannels(db, { limit: 4, perTeam: 100 }, 60_000)).length > 0);
    const leases = await db.selectFrom('channels').select('lease').execute()
    expect(leases.map(({ lease }) => lease)).toEqual(Array.from({ length: 12 }, () => 1))
  })
})
