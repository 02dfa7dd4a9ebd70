import { AppError, capsuleIds, waitFor } from '@wrenn/base'
import type { AuditPage, Capsule, CapsuleMove, Host, HostDrain, NewHost } from '@wrenn/protocol'
import { FakeHost } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { insertCapsule } from './store/capsules.js'
import { type Db, openDatabase } from './store/database.js'
import { fakeStates, storeEnv } from './testing/fake-states.js'
import { json, type Platform, refusal, startPlatform, startReplica } from './testing/harness.js'
import { type JoinedMachine, joinAnew, joinAs, untilOnline } from './testing/joined-host.js'

const LONG_MS = 240_000
const ENV = {
  ...storeEnv,
  WRENN_HOST_AGENT_ADDRESS: 'joined',
  WRENN_HOST_SILENT_SEC: '5',
  WRENN_QUOTA_CREATING_CAPSULES: '0',
  WRENN_QUOTA_RUNNING_CAPSULES: '0',
}

let platform: Platform
let second: ControlPlane
let db: Db
/** Joined machines; all but the first two are cordoned where a test does not want them. */
let a: JoinedMachine
let b: JoinedMachine
let c: JoinedMachine

const openStates = fakeStates(() => a.fake)

beforeAll(async () => {
  platform = await startPlatform({ env: ENV, timing: { openStates } })
  second = await startReplica(platform, ENV, undefined, { openStates })
  db = openDatabase({ url: platform.databaseUrl })
  a = await joinAnew(platform, platform.host)
  b = await joinAnew(platform, await FakeHost.start())
  c = await joinAnew(platform, await FakeHost.start())
  for (const { fake } of [b, c]) fake.store = a.fake.store
  await untilOnline(platform)
}, LONG_MS)
afterAll(async () => {
  await db.destroy()
  await second[Symbol.asyncDispose]()
  for (const { door } of [a, b, c]) await door[Symbol.asyncDispose]()
  for (const { fake } of [b, c]) await fake[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const all = (): readonly JoinedMachine[] => [a, b, c]
const post = async (path: string, body?: object): Promise<Response> => await platform.call('POST', path, body)
const moving = (id: string, to?: JoinedMachine, waitSec = 30): Promise<Response> =>
  post(`/v1/admin/capsules/${id}/move?wait_sec=${waitSec}`, to && { host_id: to.id })
const move = async (id: string, to?: JoinedMachine): Promise<CapsuleMove> => await json(await moving(id, to), 200)
const moveOf = async (id: string): Promise<CapsuleMove> =>
  await json(await platform.call('GET', `/v1/admin/capsules/${id}/move`), 200)
const ended = async (id: string): Promise<CapsuleMove> =>
  await waitFor(async () => await moveOf(id).then((each) => (each.state === 'running' ? undefined : each)), {
    timeoutMs: 60_000,
    what: 'the move to end',
  })
const end = async (...ids: readonly string[]): Promise<void> => {
  for (const id of ids) await platform.call('DELETE', `/v1/capsules/${id}`)
}

/** While no other host takes anything new. */
async function among<T>(machines: readonly JoinedMachine[], work: () => Promise<T>): Promise<T> {
  const others = all().filter((each) => !machines.includes(each))
  for (const { id } of others) await json(await post(`/v1/hosts/${id}/cordon`), 200)
  try {
    return await work()
  } finally {
    for (const { id } of others) await json(await post(`/v1/hosts/${id}/uncordon`), 200)
  }
}

async function exec(id: string, cmd: string): Promise<string> {
  const answer = await post(`/v1/capsules/${id}/exec`, { cmd: 'sh', args: ['-c', cmd] })
  return (await json<{ stdout: string }>(answer, 200)).stdout
}

/** A running capsule with something in it. */
async function made(on: JoinedMachine, body: object = {}): Promise<string> {
  const { id } = await among([on], async () => await platform.create(body))
  await exec(id, 'echo kept > note')
  return id
}

const runsOn = (id: string): readonly string[] =>
  all()
    .filter(({ fake }) => fake.capsules.get(id)?.state === 'running')
    .map((each) => each.id)

/** Nothing is kept of a capsule anywhere, but for what is said. */
async function untilKept(id: string, hosts: readonly JoinedMachine[], stored: number): Promise<void> {
  const found = async () => ({
    hosts: all()
      .filter(({ fake }) => fake.capsules.has(id))
      .map(({ id: host }) => host),
    stored: [...a.fake.store.values()].filter(({ capsuleId }) => capsuleId === id).length,
    rows: (await db.selectFrom('stored_states').selectAll().where('capsule_id', '=', id).execute()).length,
  })
  const wanted = { hosts: hosts.map(({ id: host }) => host), stored, rows: stored }
  await expect.poll(found, { timeout: 30_000 }).toEqual(wanted)
}

/** It runs there as it was, and nowhere else is anything of it. */
async function goesOnOn(id: string, machine: JoinedMachine): Promise<void> {
  await platform.until(id, 'running')
  expect((await platform.get(id)).host_id).toBe(machine.id)
  expect(await exec(id, 'cat note')).toBe('kept\n')
  await untilKept(id, [machine], 0)
  expect(runsOn(id)).toEqual([machine.id])
}

const expireLeases = async (): Promise<void> => {
  await sql`UPDATE operations SET lease_until = now() WHERE state = 'running'`.execute(db)
}

describe('a capsule that is moved', () => {
  it(
    'goes on on another host, the one that is asked for, and tells how it does',
    async () => {
      const id = await made(a)
      const held = c.fake.holdNext('fetch_state')
      const asked = moving(id, c)
      await held.reached
      expect(await moveOf(id)).toMatchObject({
        ...{ state: 'running', capsule_state: 'resuming', from_host_id: a.id, to_host_id: c.id },
        because: 'it was asked for',
      })
      const [status, code] = await refusal(await moving(id, b, 0))
      expect([status, code]).toEqual([409, 'conflict'])
      const joined = moving(id)
      held.release()
      for (const answer of [await asked, await joined])
        expect(await json<CapsuleMove>(answer, 200)).toMatchObject({ state: 'succeeded', host_id: c.id })
      await goesOnOn(id, c)
      // It is there: nothing to do.
      expect(await move(id, c)).toMatchObject({ state: 'succeeded', host_id: c.id })
      expect(await move(id)).toMatchObject({
        from_host_id: c.id,
        because: expect.stringContaining('is free, of 2 hosts'),
      })
      const page = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${id}`), 200)
      const told = page.items.filter(({ action }) => action === 'capsule.move')
      expect(told.map(({ outcome, details }) => [outcome, details?.from, details?.host_id]).slice(-2)).toEqual([
        ['success', a.id, c.id],
        ['accepted', a.id, c.id],
      ])
      await end(id)
    },
    LONG_MS,
  )

  it(
    'hibernates when it was paused, and cannot be sent to a host then',
    async () => {
      const id = await made(a)
      await json(await post(`/v1/capsules/${id}/pause?wait_sec=30`), 200)
      const [status, code, message] = await refusal(await moving(id, b))
      expect([status, code]).toEqual([409, 'invalid_state'])
      expect(message).toContain('only one that runs goes to a host by name')
      for (let times = 0; times < 2; times++)
        expect(await move(id)).toMatchObject({ state: 'succeeded', capsule_state: 'hibernated' })
      await untilKept(id, [], 1)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'stays as it is when no other host has room, what is promised to others counted',
    async () => {
      const size = { vcpus: 1, memory_mb: 1024 }
      const [first, next] = [await made(a, size), await made(a, size)]
      await among([a], async () => {
        const [status, code, message] = await refusal(await moving(first))
        expect([status, code]).toEqual([503, 'no_hosts_available'])
        expect(message).toContain(`${a.id} is where it is`)
        expect(message).toContain(`${b.id} is cordoned`)
      })
      // Each fake host has 8 GiB, of which 7372 MiB are promised.
      const filler = await among([b], async () => await platform.create({ vcpus: 1, memory_mb: 6144 }))
      const held = a.fake.holdNext('store')
      await among([a, b], async () => {
        await moving(first, undefined, 0)
        await held.reached
        const [, code, message] = await refusal(await moving(next))
        expect([code, message]).toEqual(['no_hosts_available', expect.stringContaining('204 MiB left')])
        const [, named, said] = await refusal(await moving(next, b))
        expect([named, said]).toEqual(['no_hosts_available', expect.stringContaining(`${b.id} cannot have 1 vCPUs`)])
        held.release()
        expect(await ended(first)).toMatchObject({ state: 'succeeded', host_id: b.id })
      })
      await goesOnOn(first, b)
      expect(runsOn(next)).toEqual([a.id])
      await end(first, next, filler.id)
    },
    LONG_MS,
  )

  it(
    'is refused while it has checkpoints, on a host that is not there, and when it is not there itself',
    async () => {
      const id = await made(a)
      await json(await post(`/v1/capsules/${id}/checkpoints`, {}), 201)
      expect((await refusal(await moving(id))).slice(0, 2)).toEqual([409, 'invalid_state'])
      const nowhere = { host_id: `host-${'0'.repeat(25)}` }
      const bare = await made(a)
      const unknown = await refusal(await post(`/v1/admin/capsules/${bare}/move`, nowhere))
      expect(unknown.slice(0, 2)).toEqual([404, 'host_not_found'])
      expect((await refusal(await moving(`cl-${'0'.repeat(25)}`))).slice(0, 2)).toEqual([404, 'capsule_not_found'])
      expect((await platform.call('GET', `/v1/admin/capsules/${id}/move`)).status).toBe(404)
      expect([(await platform.get(id)).state, (await platform.get(bare)).state]).toEqual(['running', 'running'])
      await end(id, bare)
    },
    LONG_MS,
  )

  for (const when of ['before', 'after'] as const) {
    for (const point of when === 'after'
      ? (['pause', 'store', 'fetch_state', 'resume'] as const)
      : (['store', 'fetch_state'] as const)) {
      it(
        `is moved all the same when its control plane dies ${when} the host did ${point}`,
        async () => {
          const id = await made(a)
          const machine = point === 'pause' || point === 'store' ? a : b
          const held = machine.fake.holdNext(point, when)
          await moving(id, b, 0)
          await held.reached
          expect(runsOn(id).length).toBeLessThanOrEqual(1)
          await platform.restart(async () => held.release())
          await expireLeases()
          expect(await ended(id)).toMatchObject({ state: 'succeeded', host_id: b.id })
          await goesOnOn(id, b)
          await end(id)
        },
        LONG_MS,
      )
    }
  }

  it(
    'goes to the next host when one cannot have it, and back when none can',
    async () => {
      const id = await made(a)
      const full = (): AppError => new AppError('disk_full', 'There is no room.')
      const first = await among([a, b, c], async () => {
        const storing = a.fake.holdNext('store')
        await moving(id, undefined, 0)
        await storing.reached
        const to = (await moveOf(id)).to_host_id
        const promised = to === b.id ? b : c
        promised.fake.failNext('fetch_state', full(), 'after')
        storing.release()
        return promised
      })
      const next = first === b ? c : b
      expect(await ended(id)).toMatchObject({ state: 'succeeded', host_id: next.id })
      await goesOnOn(id, next)

      for (const each of all()) if (each !== next) each.fake.failNext('fetch_state', full())
      await moving(id, undefined, 0)
      const back = await ended(id)
      expect(back).toMatchObject({ state: 'failed', host_id: next.id, error: { code: 'no_hosts_available' } })
      expect(back.error?.message).toContain('could not have it')
      await goesOnOn(id, next)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'goes on when no host could have it for a while, as when the object store was away',
    async () => {
      const id = await made(a)
      const away = (): AppError => new AppError('object_store_unavailable', 'The object store does not answer.')
      for (const { fake } of all()) fake.failNext('fetch_state', away())
      await moving(id, undefined, 0)
      expect(await ended(id)).toMatchObject({ state: 'succeeded', capsule_state: 'running' })
      const machine = all().find((each) => runsOn(id).includes(each.id))
      if (machine === undefined) throw new Error('it runs nowhere')
      expect(machine.id).not.toBe(a.id)
      await goesOnOn(id, machine)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'runs where it was when its state cannot be stored',
    async () => {
      const id = await made(a)
      const endsAt = new Date(Date.now() + 600_000)
      const life = { lifetime_sec: 3600, on_end: 'pause', ends_at: endsAt } as const
      await db.updateTable('capsules').set(life).where('id', '=', id).execute()
      a.fake.failNext('store', new AppError('not_supported', 'The object store does not answer.'))
      await moving(id, undefined, 0)
      expect(await ended(id)).toMatchObject({ state: 'failed', host_id: a.id, error: { code: 'not_supported' } })
      // Its life goes on, too: one that is tried again and again would live for ever.
      const row = db.selectFrom('capsules').select('ends_at').where('id', '=', id)
      const leftMs = ((await row.executeTakeFirstOrThrow()).ends_at?.getTime() ?? 0) - endsAt.getTime()
      expect(Math.abs(leftMs)).toBeLessThan(120_000)
      await goesOnOn(id, a)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'goes elsewhere when the host that has a place for it falls silent',
    async () => {
      const id = await made(a)
      const held = a.fake.holdNext('store')
      await among([a, b], async () => {
        await moving(id, undefined, 0)
        await held.reached
      })
      expect((await moveOf(id)).to_host_id).toBe(b.id)
      await b.door[Symbol.asyncDispose]()
      const status = async () => (await json<Host>(await platform.call('GET', `/v1/hosts/${b.id}`), 200)).status
      await expect.poll(status, { timeout: 30_000 }).toBe('unreachable')
      held.release()
      expect(await ended(id)).toMatchObject({ state: 'succeeded', host_id: c.id })
      await goesOnOn(id, c)
      const again = await json<NewHost>(await post(`/v1/hosts/${b.id}/token`), 201)
      b = { ...b, ...(await joinAs(platform, b.fake, again)) }
      await expect.poll(status, { timeout: 30_000 }).toBe('online')
      await end(id)
    },
    LONG_MS,
  )

  it(
    'has those who use it wait, instead of being woken in the way of it',
    async () => {
      const id = await made(a, { auto_resume: true })
      const held = a.fake.holdNext('store')
      await moving(id, b, 0)
      await held.reached
      const used = exec(id, 'cat note')
      const resumed = post(`/v1/capsules/${id}/resume?wait_sec=30`)
      expect(await json<Capsule>(await post(`/v1/capsules/${id}/resume?wait_sec=0`), 200)).toMatchObject({
        state: 'paused',
      })
      held.release()
      expect(await used).toBe('kept\n')
      expect(await json<Capsule>(await resumed, 200)).toMatchObject({ state: 'running', host_id: b.id })
      await goesOnOn(id, b)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'stays asleep when somebody pauses it meanwhile, and is gone when somebody destroys it',
    async () => {
      const id = await made(a)
      const held = a.fake.holdNext('store')
      await moving(id, b, 0)
      await held.reached
      const paused = post(`/v1/capsules/${id}/pause?wait_sec=30`)
      await expect
        .poll(
          async () =>
            (
              await sql`SELECT FROM operations WHERE capsule_id = ${id} AND kind = 'move'
          AND params ->> 'wakes' = 'false'`.execute(db)
            ).rows.length,
        )
        .toBe(1)
      held.release()
      expect(await json<Capsule>(await paused, 200)).toMatchObject({ state: 'hibernated' })
      expect(await ended(id)).toMatchObject({ state: 'succeeded', capsule_state: 'hibernated' })
      await untilKept(id, [], 1)

      const doomed = await made(a)
      const storing = a.fake.holdNext('store')
      await moving(doomed, b, 0)
      await storing.reached
      await end(doomed)
      storing.release()
      expect(await ended(doomed)).toMatchObject({ state: 'failed', error: { code: 'invalid_state' } })
      for (const each of [id, doomed]) {
        await end(each)
        await untilKept(each, [], 0)
      }
    },
    LONG_MS,
  )
})

describe('a host that is drained', () => {
  const removing = (machine: JoinedMachine): Promise<Response> => platform.call('DELETE', `/v1/hosts/${machine.id}`)
  const draining = (machine: JoinedMachine, body?: object): Promise<Response> =>
    post(`/v1/hosts/${machine.id}/drain`, body)
  const drainOf = async (machine: JoinedMachine): Promise<HostDrain> =>
    await json(await platform.call('GET', `/v1/hosts/${machine.id}/drain`), 200)
  const countsOf = async (machine: JoinedMachine) => {
    const { state, total, done, moving: under, waiting, failed } = await drainOf(machine)
    return { state, total, done, moving: under, waiting, failed }
  }
  const uncordon = async (machine: JoinedMachine): Promise<void> => {
    await json(await post(`/v1/hosts/${machine.id}/uncordon`), 200)
    expect((await platform.call('GET', `/v1/hosts/${machine.id}/drain`)).status).toBe(404)
  }

  it(
    'is emptied, so many at a time, and tells of what cannot go until it can',
    async () => {
      const [one, two, asleep, kept] = [await made(a), await made(a), await made(a), await made(a)]
      await json(await post(`/v1/capsules/${asleep}/pause?wait_sec=30`), 200)
      const point = await json<{ id: string }>(await post(`/v1/capsules/${kept}/checkpoints`, {}), 201)
      await json(await post('/v1/snapshots', { capsule_id: kept, name: 'stays' }), 201)
      const held = a.fake.holdNext('store')
      expect(await json<HostDrain>(await draining(a, { concurrency: 2 }), 200)).toMatchObject({
        concurrency: 2,
        total: 4,
      })
      await held.reached
      expect((await json<Host>(await platform.call('GET', `/v1/hosts/${a.id}`), 200)).schedulable).toBe(false)
      const left = { state: 'draining', total: 4, done: 2, moving: 1, waiting: 0, failed: 1 }
      const most: number[] = []
      await expect
        .poll(
          async () => {
            const counts = await countsOf(a)
            most.push(counts.moving)
            // The one with checkpoints is tried again and again.
            return { ...counts, moving: 1, waiting: 0, failed: counts.failed + counts.waiting + counts.moving - 1 }
          },
          { timeout: 60_000 },
        )
        .toEqual(left)
      expect(Math.max(...most)).toBeLessThanOrEqual(2)
      held.release()
      const all = { state: 'draining', total: 4, done: 3, moving: 0, waiting: 0, failed: 1 }
      await expect.poll(() => countsOf(a), { timeout: 60_000 }).toEqual(all)
      const { capsules, templates } = await drainOf(a)
      expect(capsules[0]).toMatchObject({ capsule_id: kept, state: 'failed', error: { code: 'invalid_state' } })
      expect(capsules[0]?.error?.message).toContain('checkpoints')
      expect(templates.map(({ name }) => name)).toEqual(['stays'])
      for (const id of [one, two]) {
        await platform.until(id, 'running')
        expect((await platform.get(id)).host_id).not.toBe(a.id)
        expect(await exec(id, 'cat note')).toBe('kept\n')
        expect(runsOn(id)).toHaveLength(1)
      }
      expect(await platform.get(asleep)).toMatchObject({ state: 'hibernated' })
      expect(runsOn(kept)).toEqual([a.id])

      expect((await platform.call('DELETE', `/v1/capsules/${kept}/checkpoints/${point.id}`)).status).toBeLessThan(300)
      await expect.poll(async () => (await drainOf(a)).state, { timeout: 60_000 }).toBe('drained')
      await expect.poll(() => a.fake.capsules.size, { timeout: 30_000 }).toBe(0)
      const page = await json<AuditPage>(await platform.call('GET', `/v1/admin/audit-logs?resource_id=${a.id}`), 200)
      const told = page.items.map(({ action }) => action).filter((action) => /drain/.test(action))
      expect(told).toEqual(['host.drained', 'host.drain'])
      expect((await platform.call('DELETE', '/v1/snapshots/stays')).status).toBeLessThan(300)
      await uncordon(a)
      await end(one, two, asleep, kept)
    },
    LONG_MS,
  )

  it(
    'is emptied all the same when control planes die meanwhile',
    async () => {
      const ids = [await made(a), await made(a)]
      const held = a.fake.holdNext('store', 'after')
      await draining(a, { concurrency: 1 })
      await held.reached
      await platform.restart(async () => held.release())
      await expireLeases()
      const all = { state: 'drained', total: 2, done: 2, moving: 0, waiting: 0, failed: 0 }
      await expect.poll(() => countsOf(a), { timeout: 60_000 }).toEqual(all)
      for (const id of ids) {
        await platform.until(id, 'running')
        expect(await exec(id, 'cat note')).toBe('kept\n')
        expect(runsOn(id)).not.toContain(a.id)
      }
      await uncordon(a)
      await end(...ids)
    },
    LONG_MS,
  )

  it(
    'tells of what has left it and goes on nowhere',
    async () => {
      const id = await made(a)
      for (const { fake } of all())
        fake.failNext('fetch_state', new AppError('object_store_refused', 'There is no bucket "capsules".'))
      await draining(a)
      await expect.poll(async () => (await drainOf(a)).state, { timeout: 60_000 }).toBe('drained')
      expect(await platform.get(id)).toMatchObject({ state: 'hibernated' })
      const { capsules } = await drainOf(a)
      expect(capsules).toMatchObject([{ capsule_id: id, state: 'done', error: { code: 'no_hosts_available' } }])
      expect(capsules[0]?.error?.message).toContain('goes on when it is resumed')
      await uncordon(a)
      await end(id)
    },
    LONG_MS,
  )

  it(
    'keeps what has ended there and can be resumed, until it is resumed or destroyed',
    async () => {
      const [ended, doomed] = [await made(a), await made(a)]
      for (const id of [ended, doomed]) {
        a.fake.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
        await platform.until(id, 'error')
      }
      a.fake.failNext('create', new AppError('engine_failure', 'The guest does not boot.'))
      await among([a], async () => {
        await post('/v1/capsules?wait_sec=30', { template: 'minimal' }) // it leaves nothing behind
      })
      await draining(a)
      const both = { state: 'draining', total: 2, done: 0, moving: 0, waiting: 0, failed: 2 }
      await expect.poll(() => countsOf(a), { timeout: 60_000 }).toEqual(both)
      for (const { error } of (await drainOf(a)).capsules) {
        expect(error).toMatchObject({ code: 'invalid_state', message: expect.stringContaining('resume it') })
      }
      const [status, code, message] = await refusal(await removing(a))
      expect([status, code]).toEqual([409, 'in_use'])
      expect(message).toContain('2 capsules, paused ones and ended ones')

      await end(doomed)
      await json(await post(`/v1/capsules/${ended}/resume?wait_sec=30`, { from: 'disk' }), 200)
      await expect.poll(async () => (await drainOf(a)).state, { timeout: 60_000 }).toBe('drained')
      await platform.until(ended, 'running')
      expect(runsOn(ended)).not.toContain(a.id)
      expect(await exec(ended, 'cat note')).toBe('kept\n')
      await uncordon(a)
      await end(ended)
    },
    LONG_MS,
  )

  it(
    'keeps what no other host has room for, and the rest when it is stopped',
    async () => {
      const [one, two] = [await made(a), await made(a)]
      await among([a], async () => {
        await draining(a, { concurrency: 1 })
        const none = { state: 'draining', total: 2, done: 0, moving: 0, waiting: 0, failed: 2 }
        await expect.poll(() => countsOf(a), { timeout: 60_000 }).toEqual(none)
        for (const { error } of (await drainOf(a)).capsules) expect(error?.code).toBe('no_hosts_available')
        expect([one, two].map((id) => runsOn(id))).toEqual([[a.id], [a.id]])
      })
      const held = a.fake.holdNext('store')
      await held.reached
      for (let times = 0; times < 2; times++)
        expect((await platform.call('DELETE', `/v1/hosts/${a.id}/drain`)).status).toBe(204)
      held.release()
      const gone = async () => (await Promise.all([one, two].map((id) => platform.get(id)))).map((each) => each.host_id)
      await expect.poll(async () => (await gone()).filter((on) => on === a.id), { timeout: 60_000 }).toEqual([a.id])
      const left = (await gone())[0] === a.id ? one : two
      expect(runsOn(left)).toEqual([a.id])
      expect((await json<Host>(await platform.call('GET', `/v1/hosts/${a.id}`), 200)).schedulable).toBe(false)
      await uncordon(a)
      expect((await refusal(await draining({ ...a, id: `host-${'0'.repeat(25)}` }))).slice(0, 2)).toEqual([
        404,
        'host_not_found',
      ])
      await end(one, two)
    },
    LONG_MS,
  )
})

it(
  'a host is drained no more when a control plane that knows no drains has uncordoned it',
  async () => {
    await json(await post(`/v1/hosts/${a.id}/drain`), 200)
    await db.updateTable('joined_hosts').set({ cordoned_at: null }).where('id', '=', a.id).execute()
    const status = async () => (await platform.call('GET', `/v1/hosts/${a.id}/drain`)).status
    await expect.poll(status, { timeout: 30_000 }).toBe(404)
    const page = await json<AuditPage>(await platform.call('GET', `/v1/admin/audit-logs?resource_id=${a.id}`), 200)
    expect(page.items[0]?.action).toBe('host.stop_drain')
  },
  LONG_MS,
)

describe('a platform with one host, or without an object store', () => {
  it(
    'moves nothing, and says what is lacking',
    async () => {
      const databaseUrl = platform.databaseUrl.replace(/\/[^/?]*(\?|$)/, '/postgres$1')
      const worlds = [
        [storeEnv, '--remote-host'],
        [{ ...ENV, WRENN_OBJECT_STORE: '' }, 'WRENN_OBJECT_STORE'],
      ] as const
      for (const [env, name] of worlds) {
        const own = await startPlatform({ env, databaseUrl, timing: { openStates } })
        await using _ = own
        const rows = openDatabase({ url: own.databaseUrl })
        const { id: teamId } = await rows.selectFrom('teams').select('id').limit(1).executeTakeFirstOrThrow()
        const id = capsuleIds.create()
        await insertCapsule(rows, {
          ...{ id, team_id: teamId, template: 'minimal', state: 'running', desired_state: 'running' },
          ...{ vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}' },
          ...{ default_user: '', default_cwd: '', observed_state: 'running' },
        })
        await rows.destroy()
        const said = await refusal(await own.call('POST', `/v1/admin/capsules/${id}/move`))
        expect(said).toEqual([501, 'not_supported', expect.stringContaining(name)])
        if (env === storeEnv) continue
        const { host } = await json<NewHost>(await own.call('POST', '/v1/hosts', {}), 201)
        expect(await refusal(await own.call('POST', `/v1/hosts/${host.id}/drain`))).toEqual(said)
        expect((await json<Host>(await own.call('GET', `/v1/hosts/${host.id}`), 200)).schedulable).toBe(true)
      }
    },
    LONG_MS,
  )
})
