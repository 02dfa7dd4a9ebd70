import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { capsuleIds, silentLogger } from '@wrenn/base'
import type { AuditPage, Capsule, ErrorBody, NewHost, PlatformHealth } from '@wrenn/protocol'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHostClient } from './host/transport.js'
import { insertCapsule } from './store/capsules.js'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'
import { type JoinedMachine, joinAnew, joinAs, untilOnline } from './testing/joined-host.js'

const LONG_MS = 240_000
const ENV = {
  WRENN_HOST_AGENT_ADDRESS: 'joined',
  WRENN_ENCRYPTION_KEY: '11'.repeat(32),
  WRENN_HOST_SILENT_SEC: '10',
  WRENN_LOST_GRACE_SEC: '1',
}

let platform: Platform
let db: Db
let a: JoinedMachine
let b: JoinedMachine

beforeAll(async () => {
  platform = await startPlatform({ env: ENV })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
  a = await joinAnew(platform, platform.host)
  b = await joinAnew(platform, await FakeHost.start())
  await untilOnline(platform)
}, LONG_MS)
afterAll(async () => {
  for (const { door } of [a, b]) await door[Symbol.asyncDispose]()
  await b.fake[Symbol.asyncDispose]()
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const post = async (path: string, body: object = {}): Promise<Response> => await platform.call('POST', path, body)
const until = async (what: () => Promise<unknown>, value: unknown): Promise<void> =>
  await expect.poll(what, { timeout: 60_000 }).toEqual(value)
const statusOf = async (id: string): Promise<string> =>
  (await json<{ status: string }>(await platform.call('GET', `/v1/hosts/${id}`), 200)).status
const stateOf = async (id: string): Promise<string> => (await platform.get(id)).state

/** A capsule on each of the two: creates go where the most room is. */
async function oneOnEach(): Promise<readonly [a: Capsule, b: Capsule]> {
  const both = [await platform.create(), await platform.create()]
  const on = (id: string): Capsule => {
    const found = both.find(({ host_id: hostId }) => hostId === id)
    if (found === undefined) throw new Error(`no capsule of ${both.map((each) => each.host_id)} is on ${id}`)
    return found
  }
  return [on(a.id), on(b.id)]
}

/** While the host gets no new capsules. */
async function onlyOn<T>(cordonedId: string, work: () => Promise<T>): Promise<T> {
  await json(await post(`/v1/hosts/${cordonedId}/cordon`), 200)
  const done = await work()
  await json(await post(`/v1/hosts/${cordonedId}/uncordon`), 200)
  return done
}

/** Of one that is nowhere, recorded without a host. */
async function rowOfNone(): Promise<string> {
  const id = capsuleIds.create()
  const { team_id: teamId } = await db.selectFrom('capsules').select('team_id').limit(1).executeTakeFirstOrThrow()
  await insertCapsule(db, {
    ...{ id, team_id: teamId, template: 'minimal', state: 'running', desired_state: 'running' },
    ...{ vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}' },
    ...{ default_user: '', default_cwd: '', observed_state: 'running' },
  })
  return id
}

async function endAll(capsules: readonly Capsule[]): Promise<void> {
  for (const { id } of capsules) await platform.call('DELETE', `/v1/capsules/${id}`)
}

describe('a platform with two hosts', () => {
  it(
    'makes capsules on both, and does with each what is asked where it is',
    async () => {
      const capsules = await oneOnEach()
      for (const [index, capsule] of capsules.entries()) {
        const { fake, id: hostId } = index === 0 ? a : b
        expect([...fake.capsules.keys()]).toContain(capsule.id)
        const said = await post(`/v1/capsules/${capsule.id}/exec`, { cmd: 'echo', args: [`on ${index}`] })
        expect(await json(said, 200)).toMatchObject({ stdout: `on ${index}\n` })

        const service = createServer((_request, response) => response.end(`port ${index}`)).listen(0, '127.0.0.1')
        await new Promise((resolve) => service.once('listening', resolve))
        const { port } = service.address() as AddressInfo // it listens
        const headers = { 'e2b-sandbox-id': capsule.id, 'e2b-sandbox-port': `${port}` }
        expect(await (await fetch(platform.url, { headers })).text()).toBe(`port ${index}`)
        service.close()

        const point = await json<{ id: string }>(await post(`/v1/capsules/${capsule.id}/checkpoints`), 201)
        await json(await post(`/v1/capsules/${capsule.id}/pause`), 200)
        await json(await post(`/v1/capsules/${capsule.id}/resume`), 200)
        await json(await post(`/v1/capsules/${capsule.id}/checkpoints/${point.id}/rollback`), 200)
        const forked = await json<{ capsules: Capsule[] }>(await post(`/v1/capsules/${capsule.id}/fork`), 201)
        expect(forked.capsules.map(({ host_id: on }) => on)).toEqual([hostId])
        const name = `of-${index}`
        await json(await post('/v1/snapshots', { capsule_id: capsule.id, name }), 201)
        for (let times = 0; times < 2; times++) {
          const made = await platform.create({ template: name })
          expect(made.host_id).toBe(hostId)
          await endAll([made])
        }
        await endAll(forked.capsules)
        expect((await platform.call('DELETE', `/v1/snapshots/${name}`)).status).toBe(204)
        await until(async () => fake.snapshots.size, 0)
      }
      await endAll(capsules)
      for (const { fake } of [a, b]) await until(async () => fake.capsules.size, 0)
    },
    LONG_MS,
  )

  it(
    'shows both, and what each holds',
    async () => {
      const capsules = await oneOnEach()
      const health = await json<PlatformHealth>(await platform.call('GET', '/v1/admin/health'), 200)
      const shown = health.hosts.map(({ id, answers, capsules: count }) => [id, answers, count])
      expect(new Set(shown.map(String))).toEqual(new Set([`${a.id},true,1`, `${b.id},true,1`]))
      await endAll(capsules)
    },
    LONG_MS,
  )

  it(
    'goes on with one when the other falls silent: only what is there is missing, and comes back',
    async () => {
      const [onA, onB] = await oneOnEach()
      await b.door[Symbol.asyncDispose]()
      await until(() => stateOf(onB.id), 'missing')
      await until(() => statusOf(b.id), 'unreachable')
      const ofNone = await rowOfNone()
      await until(() => stateOf(ofNone), 'missing')
      expect(await stateOf(onA.id)).toBe('running')
      expect((await post(`/v1/capsules/${onA.id}/exec`, { cmd: 'true' })).status).toBe(200)
      const made = [await platform.create(), await platform.create()]
      expect(made.map(({ host_id: on }) => on)).toEqual([a.id, a.id])
      expect((await platform.call('GET', '/ready')).status).toBe(200)
      expect((await platform.call('GET', '/v1/snapshots')).status).toBe(200)
      expect(await statusOf(a.id)).toBe('online')
      expect(b.fake.capsules.has(onB.id)).toBe(true)

      const again = await json<NewHost>(await post(`/v1/hosts/${b.id}/token`), 201)
      b = { ...b, ...(await joinAs(platform, b.fake, again)) }
      await until(() => stateOf(onB.id), 'running')
      expect((await post(`/v1/capsules/${onB.id}/exec`, { cmd: 'true' })).status).toBe(200)
      await until(() => stateOf(ofNone), 'error')
      expect((await platform.get(ofNone)).exit?.message).toContain('no host of the platform has it')
      await endAll([onA, onB, ...made])
    },
    LONG_MS,
  )

  it(
    'gives a create that cannot have come to its host to another one, and no other',
    async () => {
      // The freest host, as far as anybody knows.
      const onA = await onlyOn(b.id, async () => [await platform.create(), await platform.create()])
      const held = b.fake.holdNext('create', 'after')
      const cut = platform.create({ name: 'cut' })
      await held.reached
      await b.door[Symbol.asyncDispose]()
      const moved = await platform.create({ name: 'moved' })
      expect(moved).toMatchObject({ state: 'running', host_id: a.id })
      const { items } = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${moved.id}`), 200)
      const told = items.filter(({ action }) => action === 'capsule.create')
      expect(told.map(({ outcome, details }) => [outcome, details?.host_id])).toEqual([
        ['success', a.id],
        ['accepted', b.id],
      ])
      // It may run where it was sent to, and does: nobody else is asked for it.
      held.release()
      const again = await json<NewHost>(await post(`/v1/hosts/${b.id}/token`), 201)
      b = { ...b, ...(await joinAs(platform, b.fake, again)) }
      const stays = await cut
      await until(() => stateOf(stays.id), 'running')
      expect((await platform.get(stays.id)).host_id).toBe(b.id)
      expect([a, b].map(({ fake }) => fake.capsules.has(stays.id))).toEqual([false, true])
      await endAll([...onA, moved, stays])
    },
    LONG_MS,
  )

  it(
    'does not believe one what it says of a capsule of the other',
    async () => {
      const [onA, onB] = await oneOnEach()
      const link = createHostClient(a.fake.address)
      await link.client.createCapsule({ capsuleId: onB.id, template: 'minimal', vcpus: 1, memoryMib: 64 })
      await a.fake.pauseByItself(onB.id, 'pool_low')
      // Events of a host come one after the other: once this one is known, so were those before.
      await a.fake.pauseByItself(onA.id, 'pool_low')
      await until(() => stateOf(onA.id), 'paused')
      expect(await platform.get(onB.id)).toMatchObject({ state: 'running', host_id: b.id })
      await link.client.destroyCapsule({ capsuleId: onB.id })
      link.close()
      await endAll([onA, onB])
    },
    LONG_MS,
  )

  it(
    'finds the host of what was recorded without one, and ends what is on none',
    async () => {
      const [onA, onB] = await oneOnEach()
      await db.updateTable('capsules').set({ host_id: null }).where('id', 'in', [onA.id, onB.id]).execute()
      expect((await post(`/v1/capsules/${onB.id}/exec`, { cmd: 'true' })).status).toBe(200)
      const placed = async () => [(await platform.get(onA.id)).host_id, (await platform.get(onB.id)).host_id]
      await until(placed, [a.id, b.id])
      const [lost, unwanted] = [await rowOfNone(), await rowOfNone()]
      expect((await platform.call('DELETE', `/v1/capsules/${unwanted}`)).status).toBe(204)
      await until(() => stateOf(lost), 'error')
      expect([await stateOf(onA.id), await stateOf(unwanted)]).toEqual(['running', 'stopped'])
      await endAll([onA, onB])
    },
    LONG_MS,
  )

  it(
    'loses what was on a host that is removed by force, and nothing else',
    async () => {
      const [onA, onB] = await oneOnEach()
      for (const name of ['one', 'two'])
        await json(await post('/v1/snapshots', { capsule_id: onB.id, name: `of-b-${name}` }), 201)
      const { hosts } = await json<PlatformHealth>(await platform.call('GET', '/v1/admin/health'), 200)
      const shown = hosts.map(({ id, capsules, templates }) => `${id}: ${capsules}, ${templates}`)
      expect(new Set(shown)).toEqual(new Set([`${a.id}: 1, 0`, `${b.id}: 1, 2`]))
      const { error } = await json<ErrorBody>(await platform.call('DELETE', `/v1/hosts/${b.id}`), 409)
      expect(error).toMatchObject({ code: 'in_use', details: { capsules: 1, templates: 2 } })
      expect(error.message).toContain('1 capsule, paused ones and ended ones that can be resumed too, and 2 templates')
      const held = b.fake.holdNext('create')
      const cut = await onlyOn(a.id, async () => {
        const asked = platform.create()
        await held.reached
        return { asked }
      })
      expect((await platform.call('DELETE', `/v1/hosts/${b.id}?force=true`)).status).toBe(204)
      // What it was asked for counts for nothing any more, and is made anew.
      const anew = await cut.asked
      expect(anew).toMatchObject({ state: 'running', host_id: a.id })
      held.release()
      const page = await json<AuditPage>(await platform.call('GET', '/v1/admin/audit-logs?action=host.delete'), 200)
      expect(page.items[0]?.details).toEqual({ capsules: '2', templates: '2' })
      await until(() => stateOf(onB.id), 'error')
      expect((await platform.get(onB.id)).exit).toMatchObject({ cause: 'lost_on_host' })
      expect(await stateOf(onA.id)).toBe('running')
      expect((await platform.call('DELETE', `/v1/capsules/${onB.id}`)).status).toBe(204)
      await endAll([onA, anew])
    },
    LONG_MS,
  )
})
