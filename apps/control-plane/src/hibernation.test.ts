import { AppError } from '@wrenn/base'
import type { AuditPage, Capsule, Host, Me, NewHost } from '@wrenn/protocol'
import { FakeHost } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { fakeStates, storeEnv } from './testing/fake-states.js'
import { json, type Platform, refusal, startPlatform, startReplica } from './testing/harness.js'
import { type JoinedMachine, joinAnew, joinAs, untilOnline } from './testing/joined-host.js'
import { People } from './testing/people.js'

const LONG_MS = 240_000
const ENV = { ...storeEnv, WRENN_HOST_AGENT_ADDRESS: 'joined', WRENN_HOST_SILENT_SEC: '5' }

let platform: Platform
let second: ControlPlane
let db: Db
let a: JoinedMachine
let b: JoinedMachine
let collections = 0

const openStates = fakeStates(
  () => a.fake,
  () => collections++,
)

/** As pages see them. */
async function featuresOf(of: Platform): Promise<readonly string[]> {
  const people = new People(of)
  const { token } = await people.add()
  return (await json<Me>(await people.call('/v1/me', { token }), 200)).features
}

beforeAll(async () => {
  platform = await startPlatform({ env: ENV, timing: { openStates } })
  second = await startReplica(platform, ENV, undefined, { openStates })
  db = openDatabase({ url: platform.databaseUrl })
  a = await joinAnew(platform, platform.host)
  b = await joinAnew(platform, await FakeHost.start())
  b.fake.store = a.fake.store
  await untilOnline(platform)
}, LONG_MS)
afterAll(async () => {
  await db.destroy()
  await second[Symbol.asyncDispose]()
  for (const { door } of [a, b]) await door[Symbol.asyncDispose]()
  await b.fake[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const post = async (path: string, body?: object): Promise<Response> => await platform.call('POST', path, body)
const move = async (id: string, verb: string): Promise<Capsule> =>
  await json<Capsule>(await post(`/v1/capsules/${id}/${verb}?wait_sec=30`), 200)
const machineOf = ({ host_id: on }: Capsule): JoinedMachine => (on === a.id ? a : b)
const otherThan = (one: JoinedMachine): JoinedMachine => (one === a ? b : a)

async function on<T>(machine: JoinedMachine, work: () => Promise<T>): Promise<T> {
  const other = otherThan(machine)
  await json(await post(`/v1/hosts/${other.id}/cordon`), 200)
  try {
    return await work()
  } finally {
    await json(await post(`/v1/hosts/${other.id}/uncordon`), 200)
  }
}

async function exec(id: string, cmd: string, url = platform.url): Promise<string> {
  const headers = { 'x-api-key': platform.key, 'content-type': 'application/json' }
  const body = JSON.stringify({ cmd: 'sh', args: ['-c', cmd] })
  const answer = await fetch(`${url}/v1/capsules/${id}/exec`, { method: 'POST', headers, body })
  return (await json<{ stdout: string }>(answer, 200)).stdout
}

/** Nothing is kept of a capsule anywhere, but for what is said. */
async function untilKept(id: string, kept: { readonly hosts: readonly JoinedMachine[]; readonly stored: number }) {
  const found = async () => ({
    hosts: [a, b].filter(({ fake }) => fake.capsules.has(id)).map(({ id: host }) => host),
    stored: [...a.fake.store.values()].filter(({ capsuleId }) => capsuleId === id).length,
    leftovers: (await db.selectFrom('state_leftovers').selectAll().where('capsule_id', '=', id).execute()).length,
    rows: (await db.selectFrom('stored_states').selectAll().where('capsule_id', '=', id).execute()).length,
  })
  const wanted = { hosts: kept.hosts.map(({ id: host }) => host), stored: kept.stored, leftovers: 0, rows: kept.stored }
  await expect.poll(found, { timeout: 30_000 }).toEqual(wanted)
}

describe('a capsule that hibernates', () => {
  it(
    'leaves its host, goes on on another one, and every control plane finds it there',
    async () => {
      const capsule = await platform.create()
      const home = machineOf(capsule)
      await exec(capsule.id, 'echo kept > note')
      await exec(capsule.id, 'cat note', second.url) // it has seen where it is
      const gone = await move(capsule.id, 'hibernate')
      expect(gone).toMatchObject({ state: 'hibernated', status: 'hibernated' })
      expect(gone.host_id).toBeUndefined()
      await untilKept(capsule.id, { hosts: [], stored: 1 })

      const there = otherThan(home)
      const back = await on(there, async () => await move(capsule.id, 'resume'))
      expect(back).toMatchObject({ state: 'running', host_id: there.id })
      for (const url of [platform.url, second.url]) expect(await exec(capsule.id, 'cat note', url)).toBe('kept\n')
      await untilKept(capsule.id, { hosts: [there], stored: 0 })
      const page = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${capsule.id}`), 200)
      const told = page.items.map(({ action, outcome }) => `${action} ${outcome}`)
      expect(told).toEqual(expect.arrayContaining(['capsule.hibernate accepted', 'capsule.hibernate success']))
      const resumed = page.items.find(({ action, outcome }) => action === 'capsule.resume' && outcome === 'accepted')
      expect(resumed?.details).toMatchObject({ host_id: there.id, host_because: expect.stringContaining('is free') })
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
    },
    LONG_MS,
  )

  it(
    'goes on only where its create wanted it',
    async () => {
      const tags = async (host: JoinedMachine, hostTags: readonly string[]): Promise<void> => {
        await json(await platform.call('PUT', `/v1/hosts/${host.id}/tags`, { tags: hostTags }), 200)
      }
      await tags(a, ['eu'])
      const { id } = await platform.create({ host_tags: ['eu'] })
      await move(id, 'hibernate')
      await on(b, async () => {
        const [status, code] = await refusal(await post(`/v1/capsules/${id}/resume`))
        expect([status, code]).toEqual([503, 'no_hosts_available'])
      })
      expect(await move(id, 'resume')).toMatchObject({ host_id: a.id })
      await tags(a, [])
      await platform.call('DELETE', `/v1/capsules/${id}`)
    },
    LONG_MS,
  )

  it(
    'wakes when it is used',
    async () => {
      const { id } = await platform.create({ auto_resume: true })
      await exec(id, 'echo kept > note')
      await move(id, 'pause')
      await move(id, 'hibernate')
      expect(await exec(id, 'cat note')).toBe('kept\n')
      await platform.call('DELETE', `/v1/capsules/${id}`)
      await untilKept(id, { hosts: [], stored: 0 })
    },
    LONG_MS,
  )

  it(
    'goes on where it is when it is resumed before its state is stored',
    async () => {
      const capsule = await platform.create()
      const home = machineOf(capsule)
      await move(capsule.id, 'pause')
      const held = home.fake.holdNext('store')
      const hibernating = post(`/v1/capsules/${capsule.id}/hibernate?wait_sec=30`)
      await held.reached
      expect(await move(capsule.id, 'resume')).toMatchObject({ state: 'running', host_id: home.id })
      held.release()
      expect((await refusal(await hibernating)).slice(0, 2)).toEqual([409, 'conflict'])
      expect((await platform.get(capsule.id)).state).toBe('running')
      await untilKept(capsule.id, { hosts: [home], stored: 0 })

      // The host has done it already, and what it answers comes too late.
      await move(capsule.id, 'pause')
      const late = home.fake.holdNext('store', 'after')
      const again = post(`/v1/capsules/${capsule.id}/hibernate?wait_sec=30`)
      await late.reached
      await move(capsule.id, 'resume')
      await move(capsule.id, 'pause')
      late.release()
      expect((await refusal(await again)).slice(0, 2)).toEqual([409, 'conflict'])
      await untilKept(capsule.id, { hosts: [home], stored: 0 })
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
    },
    LONG_MS,
  )

  it(
    'is refused while it has checkpoints',
    async () => {
      const { id } = await platform.create()
      await json(await post(`/v1/capsules/${id}/checkpoints`, {}), 201)
      const [status, code, message] = await refusal(await post(`/v1/capsules/${id}/hibernate`))
      expect([status, code]).toEqual([409, 'invalid_state'])
      expect(message).toContain('delete them first')
      await platform.call('DELETE', `/v1/capsules/${id}`)
    },
    LONG_MS,
  )

  it(
    'is destroyed with what is in the store, and with what its host could not free yet',
    async () => {
      const capsule = await platform.create()
      const home = machineOf(capsule)
      home.fake.failNext('free')
      await move(capsule.id, 'hibernate')
      expect((await platform.call('DELETE', `/v1/capsules/${capsule.id}`)).status).toBe(204)
      await untilKept(capsule.id, { hosts: [], stored: 0 })
      expect((await platform.get(capsule.id)).state).toBe('stopped')
      expect(collections).toBeGreaterThan(0)
    },
    LONG_MS,
  )

  it(
    'stays hibernated when the chosen host cannot have it, and whatever came there goes',
    async () => {
      const capsule = await platform.create()
      await exec(capsule.id, 'echo kept > note')
      await move(capsule.id, 'hibernate')
      for (const point of ['before', 'after'] as const) {
        await on(b, async () => {
          b.fake.failNext('fetch_state', new AppError('disk_full', 'There is no room.'), point)
          const [, code] = await refusal(await post(`/v1/capsules/${capsule.id}/resume?wait_sec=30`))
          expect(code).toBe('disk_full')
        })
        expect(await platform.get(capsule.id)).toMatchObject({ state: 'hibernated' })
        await untilKept(capsule.id, { hosts: [], stored: 1 })
      }
      await move(capsule.id, 'resume')
      expect(await exec(capsule.id, 'cat note')).toBe('kept\n')
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
    },
    LONG_MS,
  )

  it(
    'goes to another host than one that could not have it, and back when none can',
    async () => {
      const capsule = await platform.create()
      await move(capsule.id, 'hibernate')
      for (const { fake, id } of [a, b]) fake.failNext('fetch_state', new AppError('disk_full', `${id} is full.`))
      const said: string[] = []
      for (let turn = 0; turn < 2; turn++) {
        const [, , message] = await refusal(await post(`/v1/capsules/${capsule.id}/resume?wait_sec=30`))
        said.push(message)
      }
      expect(said.sort()).toEqual([a, b].map(({ id }) => `${id} is full.`).sort())
      expect(await move(capsule.id, 'resume')).toMatchObject({ state: 'running' })
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
    },
    LONG_MS,
  )

  it(
    'wakes though one of two who had it fetched at once failed',
    async () => {
      const capsule = await platform.create()
      await exec(capsule.id, 'echo kept > note')
      await move(capsule.id, 'hibernate')
      await on(a, async () => {
        const held = a.fake.holdNext('fetch_state', 'after')
        await post(`/v1/capsules/${capsule.id}/resume?wait_sec=0`)
        await held.reached
        // What the other one writes when the host has it.
        await sql`UPDATE capsules SET stored_state = NULL WHERE id = ${capsule.id}`.execute(db)
        held.release(new AppError('engine_failure', 'It was cut off.'))
        await platform.until(capsule.id, 'running')
      })
      expect(await exec(capsule.id, 'cat note')).toBe('kept\n')
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
      await untilKept(capsule.id, { hosts: [], stored: 0 })
    },
    LONG_MS,
  )

  it(
    'is not what a host says of an older state of it',
    async () => {
      const capsule = await on(a, async () => await platform.create())
      await exec(capsule.id, 'echo old > note')
      a.fake.failNext('free')
      await move(capsule.id, 'hibernate')
      // Away from the host that still has it, changed, stored again, and back to that one.
      await on(b, async () => await move(capsule.id, 'resume'))
      await exec(capsule.id, 'echo new > note')
      await move(capsule.id, 'hibernate')
      await on(a, async () => await move(capsule.id, 'resume'))
      expect(await exec(capsule.id, 'cat note')).toBe('new\n')
      await untilKept(capsule.id, { hosts: [a], stored: 0 })
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
    },
    LONG_MS,
  )

  it(
    'waits for its new host while that is silent, and is lost nowhere',
    async () => {
      const capsule = await platform.create()
      await exec(capsule.id, 'echo kept > note')
      await move(capsule.id, 'hibernate')
      const held = b.fake.holdNext('fetch_state')
      const resuming = on(b, async () => {
        const answer = post(`/v1/capsules/${capsule.id}/resume?wait_sec=0`)
        await held.reached
        return await answer
      })
      await resuming
      expect((await platform.get(capsule.id)).state).toBe('resuming')
      await b.door[Symbol.asyncDispose]()
      await expect
        .poll(async () => (await json<Host>(await platform.call('GET', `/v1/hosts/${b.id}`), 200)).status, {
          timeout: 30_000,
        })
        .toBe('unreachable')
      expect((await platform.get(capsule.id)).state).toBe('resuming')
      held.release()
      const again = await json<NewHost>(await post(`/v1/hosts/${b.id}/token`), 201)
      b = { ...b, ...(await joinAs(platform, b.fake, again)) }
      await platform.until(capsule.id, 'running')
      expect(await exec(capsule.id, 'cat note')).toBe('kept\n')
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
      await untilKept(capsule.id, { hosts: [], stored: 0 })
    },
    LONG_MS,
  )

  describe('and goes on before its memory is whole', () => {
    beforeAll(() => {
      for (const { fake } of [a, b]) fake.loadsLazily = true
    })
    afterAll(() => {
      for (const { fake } of [a, b]) fake.loadsLazily = false
    })

    /** It runs, and what it came from is in the store. */
    async function woken(): Promise<{ readonly id: string; readonly there: JoinedMachine }> {
      const { id } = await platform.create()
      await exec(id, 'echo kept > note')
      await move(id, 'hibernate')
      const there = machineOf(await move(id, 'resume'))
      await exec(id, 'echo later > note')
      await untilKept(id, { hosts: [there], stored: 1 })
      return { id, there }
    }
    const forget = async (id: string): Promise<void> => {
      await platform.call('DELETE', `/v1/capsules/${id}`)
      await untilKept(id, { hosts: [], stored: 0 })
    }

    it(
      'stays in the store until its host has a durable state of it',
      async () => {
        const { id, there } = await woken()
        await move(id, 'pause')
        await untilKept(id, { hosts: [there], stored: 1 })
        await there.fake.makeDurable(id)
        await untilKept(id, { hosts: [there], stored: 0 })
        await move(id, 'resume')
        expect(await exec(id, 'cat note')).toBe('later\n')
        await forget(id)
      },
      LONG_MS,
    )

    it(
      'goes on from what its host has saved of it since, though that is not durable',
      async () => {
        const { id, there } = await woken()
        await move(id, 'pause')
        await move(id, 'resume')
        expect(await exec(id, 'cat note')).toBe('later\n')
        await untilKept(id, { hosts: [there], stored: 1 })
        await forget(id)
      },
      LONG_MS,
    )

    it(
      'is what the store has when it ends before that, and is asked for again when that cannot be had',
      async () => {
        const { id, there } = await woken()
        there.fake.die(id, { cause: 'engine_failure', message: 'What loads its memory has ended.' })
        await platform.until(id, 'error')
        there.fake.failNext('fetch_state', new AppError('disk_full', 'The pool is full.'))
        expect(await refusal(await post(`/v1/capsules/${id}/resume?wait_sec=30`))).toContain('disk_full')
        expect((await platform.get(id)).state).toBe('error')
        await untilKept(id, { hosts: [there], stored: 1 })
        expect(await move(id, 'resume')).toMatchObject({ state: 'running', host_id: there.id })
        expect(await exec(id, 'cat note')).toBe('kept\n')
        await forget(id)
      },
      LONG_MS,
    )

    it(
      'goes on elsewhere from what the store has when its host has lost it',
      async () => {
        const { id, there } = await woken()
        await there.fake.remove(id)
        await platform.until(id, 'error')
        const lost = await platform.get(id)
        expect(lost.exit).toMatchObject({ cause: 'lost_on_host', message: expect.stringContaining('resume it') })
        const back = await on(otherThan(there), async () => await move(id, 'resume'))
        expect(back).toMatchObject({ state: 'running', host_id: otherThan(there).id })
        expect(await exec(id, 'cat note')).toBe('kept\n')
        await forget(id)
      },
      LONG_MS,
    )

    it(
      'hibernates again as what it is by then',
      async () => {
        const { id } = await woken()
        await move(id, 'hibernate')
        await untilKept(id, { hosts: [], stored: 1 })
        await move(id, 'resume')
        expect(await exec(id, 'cat note')).toBe('later\n')
        await forget(id)
      },
      LONG_MS,
    )
  })

  it(
    'is stored by whoever takes the operation over',
    async () => {
      const capsule = await platform.create()
      const home = machineOf(capsule)
      const held = home.fake.holdNext('store', 'after')
      await post(`/v1/capsules/${capsule.id}/hibernate?wait_sec=0`)
      await held.reached
      await platform.restart(async () => held.release())
      await sql`UPDATE operations SET lease_until = now() WHERE state = 'running' AND kind = 'hibernate'`.execute(db)
      await platform.until(capsule.id, 'hibernated')
      await untilKept(capsule.id, { hosts: [], stored: 1 })
      await platform.call('DELETE', `/v1/capsules/${capsule.id}`)
      await untilKept(capsule.id, { hosts: [], stored: 0 })
    },
    LONG_MS,
  )
})

describe('a database from before a resume', () => {
  /** A capsule that goes on on `b`, while what the database says is from when it hibernated. */
  async function resumedSince(): Promise<string> {
    const { id } = await platform.create()
    await exec(id, 'echo old > note')
    await move(id, 'hibernate')
    const row = await db.selectFrom('capsules').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
    const ofCapsule = db.selectFrom('stored_states').selectAll().where('capsule_id', '=', id)
    const state = await ofCapsule.executeTakeFirstOrThrow()
    await on(b, async () => await move(id, 'resume'))
    await exec(id, 'echo new > note')
    await untilKept(id, { hosts: [b], stored: 0 })
    const { generation, host_id, stored_state, desired_state, observed_state } = row
    await db
      .updateTable('capsules')
      .set({ state: 'hibernated', generation, host_id, stored_state, desired_state, observed_state })
      .where('id', '=', id)
      .execute()
    await sql`INSERT INTO stored_states (id, team_id, capsule_id, sealed_by, layers, bytes, generation, whole_at)
      VALUES (${state.id}, ${state.team_id}, ${id}, ${state.sealed_by}, ${state.layers}, ${state.bytes}, ${state.generation}, now())`.execute(
      db,
    )
    return id
  }
  function say({ fake }: JoinedMachine, id: string): void {
    const capsule = fake.capsules.get(id)
    if (capsule !== undefined) fake.announce(capsule)
  }

  it(
    'follows the host that has the capsule, running or paused, also after it was asked to resume it',
    async () => {
      for (const goal of ['running', 'paused'] as const) {
        const id = await resumedSince()
        const [status] = await on(a, async () => await refusal(await post(`/v1/capsules/${id}/resume?wait_sec=30`)))
        expect(status).toBeGreaterThanOrEqual(400) // it is in the store no more
        const there = b.fake.capsules.get(id)
        if (there !== undefined) there.state = goal
        say(b, id)
        expect((await platform.until(id, goal)).host_id).toBe(b.id)
        if (there !== undefined) there.state = 'running'
        say(b, id)
        await platform.until(id, 'running')
        expect(await exec(id, 'cat note')).toBe('new\n')
        await untilKept(id, { hosts: [b], stored: 0 })
        await platform.call('DELETE', `/v1/capsules/${id}`)
      }
    },
    LONG_MS,
  )
})

describe('a platform with one host', () => {
  it(
    'lets what has been paused for long hibernate by itself, and wakes it there',
    async () => {
      const store = new Set<string>()
      const own = await startPlatform({
        env: { ...storeEnv, WRENN_HIBERNATE_AFTER_SEC: '1' },
        databaseUrl: platform.databaseUrl.replace(/\/[^/?]*(\?|$)/, '/postgres$1'),
        timing: {
          openStates: async () => ({
            remove: async (id) => void store.add(id),
            collect: async () => ({ removed: 0, bytes: 0 }),
          }),
        },
      })
      await using _ = own
      const { id } = await own.create({ auto_resume: true })
      await json(await own.call('POST', `/v1/capsules/${id}/pause`), 200)
      const kept = await own.create()
      await json(await own.call('POST', `/v1/capsules/${kept.id}/checkpoints`, {}), 201)
      await json(await own.call('POST', `/v1/capsules/${kept.id}/pause`), 200)
      await own.until(id, 'hibernated')
      await expect.poll(() => own.host.capsules.has(id), { timeout: 20_000 }).toBe(false)
      expect((await own.get(kept.id)).state).toBe('paused')
      const answer = await own.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'true' })
      expect(answer.status).toBe(200)
      const states = (): number => [...store].filter((each) => each.startsWith('state-')).length
      await expect.poll(states, { timeout: 20_000 }).toBe(1)
      expect((await own.get(id)).state).toBe('running')
    },
    LONG_MS,
  )

  it(
    'and no object store refuses, and says what to set',
    async () => {
      const own = await startPlatform({ databaseUrl: platform.databaseUrl.replace(/\/[^/?]*(\?|$)/, '/postgres$1') })
      await using _ = own
      const { id } = await own.create()
      const [, code, message] = await refusal(await own.call('POST', `/v1/capsules/${id}/hibernate`))
      expect([code, message]).toEqual(['not_supported', expect.stringContaining('WRENN_OBJECT_STORE')])
      expect([await featuresOf(own), await featuresOf(platform)]).toEqual([[], ['hibernation']])
    },
    LONG_MS,
  )

  it(
    'and no key refuses, and says what to set, instead of never ending',
    async () => {
      const own = await startPlatform({
        env: { ...storeEnv, WRENN_ENCRYPTION_KEY: '' },
        databaseUrl: platform.databaseUrl.replace(/\/[^/?]*(\?|$)/, '/postgres$1'),
      })
      await using _ = own
      const { id } = await own.create()
      const [, code, message] = await refusal(await own.call('POST', `/v1/capsules/${id}/hibernate`))
      expect([code, message]).toEqual(['not_supported', expect.stringContaining('WRENN_ENCRYPTION_KEY')])
      expect(await featuresOf(own)).toEqual([])
    },
    LONG_MS,
  )
})
