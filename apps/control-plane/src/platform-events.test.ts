import { randomBytes } from 'node:crypto'
import type { Auth, Capsule, Channel, NewApiKey, NewUser } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { addChannel, newChannelId } from './store/channels.js'
import { type Db, openDatabase } from './store/database.js'
import { recordSilence } from './store/hosts.js'
import { createTeam } from './store/teams.js'
import { type EventStream, useEventStreams } from './testing/event-stream.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const PATIENCE = { timeout: 30_000, interval: 50 }
const LONG_MS = 90_000
const followUntilEnd = useEventStreams()
const env = {
  ...{ WRENN_HOST_SILENT_SEC: '3', WRENN_ENCRYPTION_KEY: '11'.repeat(32) },
  ...{ WRENN_QUOTA_VCPUS: '10', WRENN_QUOTA_POOL_BYTES: '10000' },
}

/** Two control planes, on one database and one host. */
let platform: Platform
let replica: ControlPlane
let db: Db
/** Of the key of the platform. */
let ours: string

beforeAll(async () => {
  platform = await startPlatform({ env })
  replica = await startReplica(platform, env)
  db = openDatabase({ url: platform.databaseUrl })
  ours = (await db.selectFrom('teams').select('id').executeTakeFirstOrThrow()).id
  // The first one is there already: its team is that of the key.
  await person({ is_admin: true })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

interface Told {
  readonly type: string
  readonly resource_id: string
  readonly data: Readonly<Record<string, unknown>>
}

/** All that a team was told of a kind, in order. */
async function told(kind: 'host' | 'quota', teamId = ours): Promise<Told[]> {
  const query = db.selectFrom('events').select(['type', 'resource_id', 'data']).where('team_id', '=', teamId)
  return await query.where('type', 'like', `${kind}.%`).orderBy('xid').orderBy('id').execute()
}
const typesOf = (all: readonly Told[]): string[] => all.map(({ type }) => type)
async function untilTold(type: string, count = 1, teamId = ours): Promise<void> {
  const all = async () => typesOf(await told('host', teamId)).filter((each) => each === type).length
  await expect.poll(all, PATIENCE).toBeGreaterThanOrEqual(count)
}

async function key(...scopes: string[]): Promise<string> {
  return (await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes }), 201)).key
}
async function follow(headers: Readonly<Record<string, string>>): Promise<EventStream> {
  const stream = await followUntilEnd(platform.url, headers)
  await stream.event('ready')
  return stream
}
async function person(more: object = {}): Promise<Auth & { readonly id: string }> {
  const email = `p${randomBytes(6).toString('hex')}@example.com`
  const body = { email, name: 'P', ...more }
  const made = await json<NewUser>(await platform.call('POST', '/v1/admin/users', body), 201)
  const activation = { token: made.activation_token, password: 'correct horse battery' }
  return { id: made.id, ...(await json<Auth>(await platform.call('POST', '/v1/auth/activate', activation), 200)) }
}
async function channelOf(teamId: string, events: readonly string[]): Promise<string> {
  const id = newChannelId()
  const given = { id, teamId, name: id, config: '', target: 'x', provider: 'webhook', events } as const
  await addChannel(db, given)
  // Nothing is sent: what is to be sent is what counts here.
  await db.updateTable('channels').set({ next_at: sql<Date>`'infinity'` }).where('id', '=', id).execute()
  return id
}
async function deliveriesOf(channelId: string): Promise<string[]> {
  const rows = await db.selectFrom('channel_deliveries').select('type').where('channel_id', '=', channelId).execute()
  return rows.map(({ type }) => type)
}

describe('events of hosts', () => {
  it(
    'tell who runs the platform that one is down and up again, once for all control planes, and nobody else',
    async () => {
      const stranger = await createTeam(db, 'Strangers')
      const [all, hosts] = [await channelOf(ours, ['*']), await channelOf(ours, ['host.*'])]
      const foreign = await channelOf(stranger, ['*', 'host.*'])
      const [mine, readers] = [
        await follow({ 'x-api-key': platform.key }),
        await follow({ 'x-api-key': await key('read', 'capsules', 'templates', 'admin') }),
      ]
      await platform.host.stop()
      await untilTold('host.down')
      await platform.host.start()
      await untilTold('host.up')
      const { id } = await db.selectFrom('hosts').select('id').executeTakeFirstOrThrow()
      expect((await mine.event('host.down')).data).toMatchObject({ address: platform.host.address, state: 'down' })
      expect((await mine.event('host.up')).resource_id).toBe(id)
      // However often a busy machine takes a pause for silence: no control plane says what another one has said.
      const types = typesOf(await told('host'))
      expect(types).toEqual(types.map((_, index) => (index % 2 === 0 ? 'host.down' : 'host.up')))
      const after = await platform.create()
      await readers.event('capsule.created', after.id)
      await platform.call('DELETE', `/v1/capsules/${after.id}`)
      expect(readers.events.filter(({ type }) => type.startsWith('host.'))).toEqual([])
      expect(await told('host', stranger)).toEqual([])
      expect(await deliveriesOf(foreign)).toEqual([])
      expect((await deliveriesOf(all)).filter((type) => type.startsWith('host.'))).toEqual([])
      expect((await deliveriesOf(hosts)).slice(0, 2)).toEqual(['host.down', 'host.up'])
    },
    LONG_MS,
  )

  it('do not say that one is down while another control plane hears of it', async () => {
    await expect
      .poll(async () => (await db.selectFrom('hosts').select('told_state').execute()).at(0)?.told_state)
      .toBe('up')
    const before = (await told('host')).length
    await recordSilence(db, platform.host, 3_600_000)
    expect(await told('host')).toHaveLength(before)
    await db
      .insertInto('hosts')
      .values({ ...gone, address: platform.host.address })
      .execute()
    await recordSilence(db, { address: 'unix:/of-none' }, 0)
    expect(await told('host')).toHaveLength(before)
  })
  const gone = { id: 'host-before', agent_version: '0', engine: 'fake', last_seen_at: new Date(0) }

  it(
    'tell of memory and room that run short, once until there is clearly enough',
    async () => {
      const { memoryAvailableBytes: memory, poolFreeBytes: pool } = platform.host
      const says = async (memoryBytes: bigint, poolBytes: bigint) => {
        platform.host.memoryAvailableBytes = memoryBytes
        platform.host.poolFreeBytes = poolBytes
        // It is asked when it is there again.
        await platform.host.stop()
        await platform.host.start()
      }
      const pressures = async () => (await told('host')).filter(({ type }) => /pressure|eased/.test(type))
      await says(2n ** 29n, pool)
      await untilTold('host.pressure')
      // An eighth is left: more than what counts as short, less than enough.
      await says(2n ** 30n, 2n ** 30n)
      await untilTold('host.pressure', 2)
      await says(memory, pool)
      await untilTold('host.eased')
      expect((await pressures()).map(({ type, data }) => [type, data.memory_short, data.pool_short])).toEqual([
        ['host.pressure', true, false],
        ['host.pressure', true, true],
        ['host.eased', false, false],
      ])
    },
    LONG_MS,
  )

  it('come to the teams of people who run the platform, while they do', async () => {
    const one = await person()
    const toggle = async () => {
      await db.updateTable('hosts').set({ told_state: 'down' }).where('id', '=', 'host-before').execute()
      await db.updateTable('hosts').set({ told_state: 'up' }).where('id', '=', 'host-before').execute()
    }
    await db
      .insertInto('hosts')
      .values({ ...gone, address: 'x' })
      .onConflict((on) => on.doNothing())
      .execute()
    const admin = async (isAdmin: boolean) =>
      await db.updateTable('users').set({ is_admin: isAdmin }).where('id', '=', one.user_id).execute()
    await admin(false)
    await toggle()
    expect(await told('host', one.team_id)).toEqual([])
    await admin(true)
    await toggle()
    expect(typesOf(await told('host', one.team_id))).toEqual(['host.down', 'host.up'])
    await admin(false)
    await toggle()
    expect(await told('host', one.team_id)).toHaveLength(2)
  })

  it('end with the stream of somebody who does not run the platform any more', async () => {
    const admin = await person({ is_admin: true })
    const stream = await follow({ authorization: `Bearer ${admin.token}` })
    await json(await platform.call('PATCH', `/v1/admin/users/${admin.user_id}`, { is_admin: false }), 200)
    await stream.until('its end', () => stream.isOver)
  })

  it('go to channels of who may see them, and are not in all that a team is told of', async () => {
    const make = async (by: string, ...events: string[]) => {
      const config = { url: 'https://example.com/' }
      const body = { name: `channel ${randomBytes(4).toString('hex')}`, provider: 'webhook', events, config }
      return await platform.call('POST', '/v1/channels', body, { 'x-api-key': by })
    }
    const [tenant, operator] = [await key('read', 'admin'), await key('read', 'admin', 'monitor')]
    await json<Channel>(await make(tenant, '*'), 201)
    for (const filter of ['host.*', 'host.down']) await json(await make(tenant, filter), 403)
    await json<Channel>(await make(operator, '*', 'host.*'), 201)
  })
})

describe('events of quotas', () => {
  const create = async (vcpus: number, url = platform.url) =>
    await fetch(`${url}/v1/capsules`, {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
      body: JSON.stringify({ vcpus }),
    })
  const move = async ({ id }: Capsule, way: string) =>
    await json(await platform.call('POST', `/v1/capsules/${id}/${way}`), 200)
  /** As if some time had passed. */
  const rest = async () =>
    await db
      .updateTable('quota_levels')
      .set({ near_at: new Date(0), reached_at: new Date(0) })
      .execute()
  const of = async (quota: string) =>
    (await told('quota'))
      .filter(({ resource_id }) => resource_id === quota)
      .map(({ type, data }) => [type, data.used, data.limit])

  it(
    'are told once when a team comes near a limit and once when it reaches it, however many control planes and refusals there are',
    async () => {
      await json(await create(7), 201)
      expect(await of('vcpus')).toEqual([])
      await json(await create(1), 201)
      expect(await of('vcpus')).toEqual([['quota.near', 8, 10]])
      const answers = await Promise.all([platform.url, replica.url].flatMap((url) => [create(1, url), create(1, url)]))
      const made = await Promise.all(
        answers.filter(({ status }) => status === 201).map((answer) => json<Capsule>(answer, 201)),
      )
      expect(made).toHaveLength(2)
      const both = [
        ['quota.near', 8, 10],
        ['quota.reached', 10, 10],
      ]
      expect(await of('vcpus')).toEqual(both)
      expect((await create(1)).status).toBe(429)
      await rest()
      // To and fro at the limit is no news.
      const [one, two] = made
      if (one === undefined || two === undefined) throw new Error('two were made')
      await move(one, 'pause')
      await move(one, 'resume')
      expect(await of('vcpus')).toEqual(both)
      for (const each of made) await move(each, 'pause')
      await Promise.all(made.map((each) => move(each, 'resume')))
      expect(await of('vcpus')).toEqual([...both, ['quota.reached', 10, 10]])
      // Nor is the same within some minutes.
      for (const each of made) await move(each, 'pause')
      for (const each of made) await move(each, 'resume')
      expect(await of('vcpus')).toHaveLength(3)
    },
    LONG_MS,
  )

  it('are told of what files take when it is measured, and go by the limits of the team', async () => {
    const use = async (bytes: bigint) => {
      platform.host.poolUsage = new Map([[ours, bytes]])
      const headers = { 'x-api-key': platform.key }
      await Promise.all([platform.url, replica.url].map((url) => fetch(`${url}/v1/quota`, { headers })))
    }
    await use(7_900n)
    expect(await of('pool_bytes')).toEqual([])
    await use(8_000n)
    await use(8_500n)
    await use(10_000n)
    await use(9_100n)
    await use(11_000n)
    const both = [
      ['quota.near', 8000, 10_000],
      ['quota.reached', 10_000, 10_000],
    ]
    expect(await of('pool_bytes')).toEqual(both)
    await rest()
    await use(0n)
    await db.updateTable('teams').set({ max_pool_bytes: 100_000 }).where('id', '=', ours).execute()
    await use(79_000n)
    expect(await of('pool_bytes')).toEqual(both)
    await use(80_000n)
    expect(await of('pool_bytes')).toEqual([...both, ['quota.near', 80_000, 100_000]])
    platform.host.poolUsage = undefined
  })

  it('are for who may see quotas', async () => {
    const manager = await follow({ 'x-api-key': platform.key })
    await db.updateTable('quota_levels').set({ near_at: new Date() }).where('quota', '=', 'vcpus').execute()
    expect((await manager.event('quota.near', 'vcpus')).data).toMatchObject({ limit: 10 })
  })
})
