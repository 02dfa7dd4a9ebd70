import { readFile } from 'node:fs/promises'
import { AppError, silentLogger, waitFor } from '@wrenn/base'
import type { Capsule, Egress, NewApiKey } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform, startReplica } from '../testing/harness.js'

interface Sandbox {
  readonly sandboxID: string
  readonly templateID: string
  readonly envdAccessToken?: string
  readonly trafficAccessToken?: string
  readonly domain: string
}

interface Info {
  readonly sandboxID: string
  readonly state: string
  readonly endAt: string
  readonly startedAt: string
  readonly metadata: Record<string, string>
}

let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform()
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 180_000)
afterEach(async () => {
  const left = await json<Capsule[]>(await platform.call('GET', '/v1/capsules'), 200)
  for (const { id } of left) await platform.call('DELETE', `/v1/capsules/${id}`)
})
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
}, 30_000)

async function create(body: object = {}, path = '/v2/sandboxes'): Promise<Sandbox> {
  return await json<Sandbox>(await platform.call('POST', path, { templateID: 'base', ...body }), 201)
}

const at = ({ sandboxID }: Sandbox, path = ''): string => `/sandboxes/${sandboxID}${path}`

async function info(sandbox: Sandbox): Promise<Info> {
  return await json<Info>(await platform.call('GET', at(sandbox)), 200)
}

async function secondsLeft(sandbox: Sandbox): Promise<number> {
  return (Date.parse((await info(sandbox)).endAt) - Date.now()) / 1000
}

/** Lets a sandbox's time be over. */
async function outlive({ sandboxID }: Sandbox): Promise<void> {
  await db
    .updateTable('capsules')
    .set({ ends_at: new Date(Date.now() - 1) })
    .where('id', '=', sandboxID)
    .execute()
}

/** Lets a sandbox's guest end by itself. */
async function endGuest({ sandboxID }: Sandbox): Promise<void> {
  platform.host.die(sandboxID, { cause: 'guest_shutdown', message: 'The guest was switched off.' })
  await platform.until(sandboxID, 'error')
}

/** Makes a call that finds a sandbox running, which is being killed when its end is to be moved. */
async function whileItIsKilled<T>({ sandboxID }: Sandbox, call: () => Promise<T>): Promise<T> {
  return await db
    .transaction()
    .execute(async (tx) => {
      await tx.selectFrom('capsules').select('id').where('id', '=', sandboxID).forUpdate().execute()
      const answer = call()
      await expect.poll(() => waitsForLock(), { timeout: 20_000 }).toBe(true)
      await tx.updateTable('capsules').set({ state: 'stopping' }).where('id', '=', sandboxID).execute()
      return { answer }
    })
    .then(({ answer }) => answer)
}

async function waitsForLock(): Promise<boolean> {
  const { rows } = await sql<{ pid: number }>`SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%capsules%'`.execute(db)
  return rows.length > 0
}

/** The status of an answer, which is also the `code` of its body. */
async function refusal(method: string, path: string, body?: object): Promise<{ code: number; message: string }> {
  const response = await platform.call(method, path, body)
  const error = (await response.json()) as { code: number; message: string }
  expect(Object.keys(error).sort()).toEqual(['code', 'message'])
  expect(error.code).toBe(response.status)
  return error
}

describe('a sandbox', () => {
  it('is a capsule with the semantics of its door', async () => {
    const sandbox = await create({ metadata: { user: '1' }, envVars: { A: '1' }, timeout: 100 })
    expect(sandbox).toMatchObject({ templateID: 'base', clientID: '00000000', envdVersion: '0.6.13' })
    expect(sandbox.envdAccessToken).toMatch(/^wat_/)
    expect(sandbox.domain).toMatch(/^localhost:\d+$/)
    expect(sandbox.trafficAccessToken).toBeUndefined()
    const capsule = await platform.get(sandbox.sandboxID)
    expect(capsule).toMatchObject({ state: 'running', timeout_sec: 0, labels: { user: '1' }, on_end: 'kill' })
    const row = await db
      .selectFrom('capsules')
      .selectAll()
      .where('id', '=', sandbox.sandboxID)
      .executeTakeFirstOrThrow()
    expect(row).toMatchObject({
      default_user: 'user',
      default_cwd: '/home/user',
      access_token: sandbox.envdAccessToken,
    })
    expect(await info(sandbox)).toMatchObject({
      state: 'running',
      metadata: { user: '1' },
      cpuCount: 1,
      lifecycle: { onTimeout: 'kill', autoResume: false },
      allowInternetAccess: true,
    })
    expect(await info(sandbox)).not.toHaveProperty('envdAccessToken')
  })

  it('lives as long as the route says when nobody says how long', async () => {
    for (const [path, seconds] of [
      ['/sandboxes', 15],
      ['/v2/sandboxes', 300],
    ] as const) {
      const { sandboxID } = await create({}, path)
      const row = await db.selectFrom('capsules').selectAll().where('id', '=', sandboxID).executeTakeFirstOrThrow()
      expect([path, row.lifetime_sec, row.on_end]).toEqual([path, seconds, 'kill'])
      if (row.started_at === null || row.ends_at === null) throw new Error('a sandbox that never ran')
      expect(Math.abs(row.ends_at.getTime() - row.started_at.getTime() - seconds * 1000)).toBeLessThan(5_000)
    }
  })

  it('has a token for its ports where its traffic is not public', async () => {
    const sandbox = await create({ network: { allowPublicTraffic: false } })
    expect(sandbox.trafficAccessToken).toMatch(/^wpt_/)
    expect((await platform.get(sandbox.sandboxID)).port_access).toBe('private')
  })

  it('is gone once it is killed, for all that follows', async () => {
    const sandbox = await create()
    expect((await platform.call('DELETE', at(sandbox))).status).toBe(204)
    for (const [method, path, body] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/connect', { timeout: 1 }],
      ['POST', '/timeout', { timeout: 1 }],
      ['POST', '/refreshes', {}],
      ['POST', '/pause', {}],
      ['POST', '/resume', {}],
      ['POST', '/snapshots', {}],
      ['POST', '/fork', {}],
      ['GET', '/metrics'],
      ['PUT', '/network', {}],
    ] as const) {
      expect([method, path, (await refusal(method, at(sandbox, path), body)).code]).toEqual([method, path, 404])
    }
    expect((await refusal('DELETE', '/sandboxes/nobody')).code).toBe(404)
  })

  it('whose guest has ended by itself is gone, and is killed with its files all the same', async () => {
    const sandbox = await create()
    await endGuest(sandbox)
    expect((await refusal('GET', at(sandbox))).code).toBe(404)
    expect((await refusal('POST', at(sandbox, '/timeout'), { timeout: 5 })).code).toBe(404)
    expect((await platform.call('DELETE', at(sandbox))).status).toBe(204)
    expect((await platform.get(sandbox.sandboxID)).state).toBe('stopped')
    expect(platform.host.capsules.has(sandbox.sandboxID)).toBe(false)
    expect((await refusal('DELETE', at(sandbox))).code).toBe(404)
  })

  it('may be asked for again with the same key', async () => {
    const again = () => platform.call('POST', '/v2/sandboxes', { templateID: 'base' }, { 'idempotency-key': 'once' })
    const [one, two] = [await json<Sandbox>(await again(), 201), await json<Sandbox>(await again(), 201)]
    expect(two).toEqual(one)
  })
})

describe('the life of a sandbox', () => {
  it('ends in a kill, however it is used, and the trail says why', async () => {
    const sandbox = await create()
    await outlive(sandbox)
    await platform.until(sandbox.sandboxID, 'stopped')
    expect(platform.host.capsules.has(sandbox.sandboxID)).toBe(false)
    const { items } = await json<{ items: object[] }>(
      await platform.call('GET', `/v1/audit-logs?resource_id=${sandbox.sandboxID}&action=capsule.destroy`),
      200,
    )
    expect(items).toContainEqual(
      expect.objectContaining({ actor_type: 'system', details: expect.objectContaining({ reason: 'lifetime' }) }),
    )
  })

  it('ends in a kill although its guest has ended before, and not where a pause was asked for', async () => {
    const [killed, paused] = [await create(), await create({ autoPause: true })]
    for (const sandbox of [paused, killed]) {
      await endGuest(sandbox)
      await outlive(sandbox)
    }
    await platform.until(killed.sandboxID, 'stopped')
    expect(platform.host.capsules.has(killed.sandboxID)).toBe(false)
    expect((await platform.get(paused.sandboxID)).state).toBe('error')
  })

  it('is not extended when it is over in this moment', async () => {
    for (const [path, body] of [
      ['/connect', { timeout: 900 }],
      ['/refreshes', { duration: 900 }],
      ['/timeout', { timeout: 900 }],
    ] as const) {
      const sandbox = await create()
      const { code } = await whileItIsKilled(sandbox, () => refusal('POST', at(sandbox, path), body))
      expect([path, code]).toEqual([path, 404])
    }
  })

  it('is begun again by a connect that meets its pause', async () => {
    const sandbox = await create({ autoPause: true })
    const pause = platform.host.holdNext('pause')
    await outlive(sandbox)
    await pause.reached
    const connecting = platform.call('POST', at(sandbox, '/connect'), { timeout: 900 })
    pause.release()
    await json(await connecting, 201)
    expect((await info(sandbox)).state).toBe('running')
    expect(await secondsLeft(sandbox)).toBeGreaterThan(800)
  })

  it('is as long as was said while the sandbox started', async () => {
    for (const [path, body, lifetimeSec] of [
      ['/timeout', { timeout: 900 }, 900],
      ['/timeout', { timeout: 60 }, 60],
      ['/refreshes', { duration: 900 }, 900],
      ['/refreshes', { duration: 60 }, 300],
    ] as const) {
      const held = platform.host.holdNext('create')
      const creating = create()
      await held.reached
      const { id: sandboxID } = await db
        .selectFrom('capsules')
        .select('id')
        .where('state', '=', 'starting')
        .executeTakeFirstOrThrow()
      const sandbox = { sandboxID, templateID: '', domain: '' }
      expect((await platform.call('POST', at(sandbox, path), body)).status).toBe(204)
      held.release()
      await creating
      const left = await secondsLeft(sandbox)
      expect([path, body, Math.abs(left - lifetimeSec) < 50]).toEqual([path, body, true])
    }
  })

  it('ends in a pause where that was asked for, and begins anew at the next use', async () => {
    const sandbox = await create({ autoPause: true, timeout: 10 })
    await outlive(sandbox)
    expect(await platform.until(sandbox.sandboxID, 'paused')).toMatchObject({ pause_reason: 'lifetime' })
    expect(await info(sandbox)).toMatchObject({ state: 'paused', lifecycle: { onTimeout: 'pause' } })
    const connected = await json<Sandbox>(await platform.call('POST', at(sandbox, '/connect'), { timeout: 250 }), 201)
    expect(connected.envdAccessToken).toBe(sandbox.envdAccessToken)
    expect((await info(sandbox)).state).toBe('running')
    const left = await secondsLeft(sandbox)
    expect(left).toBeLessThanOrEqual(250)
    expect(left).toBeGreaterThan(100)
  })

  it('is five minutes at least when something else wakes it', async () => {
    const sandbox = await create({ autoPause: true, autoResume: { enabled: true }, timeout: 120 })
    await json(await platform.call('POST', `/v1/capsules/${sandbox.sandboxID}/pause?wait_sec=30`), 200)
    await json(await platform.call('GET', `/v1/capsules/${sandbox.sandboxID}/processes`), 200)
    expect(await secondsLeft(sandbox)).toBeGreaterThan(200)
  })

  it('does not run out asleep', async () => {
    const sandbox = await create()
    await platform.call('POST', at(sandbox, '/pause'), {})
    const other = await create()
    await outlive(sandbox)
    await outlive(other)
    await platform.until(other.sandboxID, 'stopped')
    expect((await platform.get(sandbox.sandboxID)).state).toBe('paused')
  })

  it('is set by setTimeout, also to less, and only ever extended by connect and refreshes', async () => {
    const sandbox = await create()
    expect((await platform.call('POST', at(sandbox, '/timeout'), { timeout: 120 })).status).toBe(204)
    expect(await secondsLeft(sandbox)).toBeLessThanOrEqual(120)
    await json(await platform.call('POST', at(sandbox, '/connect'), { timeout: 900 }), 200)
    expect(await secondsLeft(sandbox)).toBeGreaterThan(800)
    await json(await platform.call('POST', `/v2${at(sandbox, '/connect')}`, {}), 200)
    expect((await platform.call('POST', at(sandbox, '/refreshes'), { duration: 1 })).status).toBe(204)
    expect(await secondsLeft(sandbox)).toBeGreaterThan(800)
  })

  it('is remembered by the next control plane', async () => {
    const sandbox = await create()
    await platform.restart()
    await outlive(sandbox)
    await platform.until(sandbox.sandboxID, 'stopped')
  })

  it('is ended by one of two control planes', async () => {
    await using _ = await startReplica(platform)
    const sandboxes = await Promise.all([create(), create({ autoPause: true })])
    for (const sandbox of sandboxes) await outlive(sandbox)
    await platform.until(sandboxes[0].sandboxID, 'stopped')
    await platform.until(sandboxes[1].sandboxID, 'paused')
  })

  it('has no end where the capsule was made through another door, until somebody gives it one', async () => {
    const { id } = await platform.create()
    const sandbox = { sandboxID: id, templateID: '', domain: '' }
    expect((await info(sandbox)).endAt).toBe('2100-01-01T00:00:00.000Z')
    await json(await platform.call('POST', at(sandbox, '/connect'), { timeout: 60 }), 200)
    expect((await platform.get(id)).ends_at).toBeUndefined()
    expect((await platform.call('POST', at(sandbox, '/timeout'), { timeout: 600 })).status).toBe(204)
    expect(await platform.get(id)).toMatchObject({ on_end: 'pause', ends_at: expect.any(String) })
  })
})

describe('a capsule made through another door', () => {
  it('has a token for clients once it is connected to, or copied', async () => {
    const { id } = await platform.create()
    const sandbox = { sandboxID: id, templateID: '', domain: '' }
    const [copy] = await json<{ sandbox: Sandbox }[]>(await platform.call('POST', at(sandbox, '/fork'), {}), 201)
    expect(copy?.sandbox.envdAccessToken).toMatch(/^wat_/)
    const connect = async () => await json<Sandbox>(await platform.call('POST', at(sandbox, '/connect'), {}), 200)
    const { envdAccessToken } = await connect()
    expect(envdAccessToken).toMatch(/^wat_/)
    expect((await connect()).envdAccessToken).toBe(envdAccessToken)
    const { items } = await json<{ items: object[] }>(
      await platform.call('GET', `/v1/audit-logs?resource_id=${id}&action=capsule.update`),
      200,
    )
    const written = items.filter((entry) => JSON.stringify(entry).includes('access_token'))
    expect([written.length, JSON.stringify(items).includes('wat_')]).toEqual([1, false])
  })
})

describe('pause and resume', () => {
  it('answer 409 to what is so already', async () => {
    const sandbox = await create()
    expect((await refusal('POST', at(sandbox, '/resume'), {})).code).toBe(409)
    expect((await platform.call('POST', at(sandbox, '/pause'), { memory: true })).status).toBe(204)
    expect((await refusal('POST', at(sandbox, '/pause'), {})).code).toBe(409)
    expect((await refusal('POST', at(sandbox, '/timeout'), { timeout: 5 })).code).toBe(409)
    await json(await platform.call('POST', at(sandbox, '/resume'), { timeout: 120 }), 201)
    expect(await secondsLeft(sandbox)).toBeLessThanOrEqual(120)
  })

  it('refuse a pause without memory, which there is not', async () => {
    const sandbox = await create()
    expect(await refusal('POST', at(sandbox, '/pause'), { memory: false })).toMatchObject({ code: 501 })
    expect((await info(sandbox)).state).toBe('running')
  })
})

describe('a list of sandboxes', () => {
  it('goes by state, metadata and template, in either order, page by page', async () => {
    const one = await create({ metadata: { 'a b': 'c&d' } })
    const two = await create({ templateID: 'minimal', metadata: { 'a b': 'c&d', other: '1' } })
    const three = await create()
    await platform.call('POST', at(two, '/pause'), {})
    const list = async (query: string) => {
      const response = await platform.call('GET', `/v2/sandboxes?${query}`)
      const ids = (await json<Info[]>(response, 200)).map(({ sandboxID }) => sandboxID)
      return { ids, next: response.headers.get('x-next-token') }
    }
    const ids = (...sandboxes: Sandbox[]) => sandboxes.map(({ sandboxID }) => sandboxID)
    expect((await list('')).ids).toEqual(ids(three, two, one))
    expect((await list('order=asc')).ids).toEqual(ids(one, two, three))
    expect((await list('state=paused')).ids).toEqual(ids(two))
    expect((await list('state=running,paused')).ids).toEqual(ids(three, two, one))
    expect((await list('metadata=a%252520b%3Dc%252526d')).ids).toEqual(ids(two, one))
    expect((await list('metadata=a%252520b%3Dc%252526d%26other%3D1')).ids).toEqual(ids(two))
    expect((await list('template=minimal')).ids).toEqual(ids(three, two, one))
    expect((await list('template=nothing')).ids).toEqual([])
    expect((await list(`startedAfter=${encodeURIComponent(new Date(Date.now() + 60_000).toISOString())}`)).ids).toEqual(
      [],
    )
    for (const [order, sandboxes] of [
      ['desc', [three, two, one]],
      ['asc', [one, two, three]],
    ] as const) {
      const first = await list(`limit=2&order=${order}`)
      const rest = await list(`limit=2&order=${order}&nextToken=${first.next}`)
      expect([...first.ids, ...rest.ids]).toEqual(ids(...sandboxes))
      expect(rest.next).toBeNull()
    }
    const old = await json<Info[]>(await platform.call('GET', '/sandboxes'), 200)
    expect(old.map(({ sandboxID }) => sandboxID)).toEqual(ids(three, one))
    expect((await refusal('GET', '/v2/sandboxes?state=stopped')).code).toBe(400)
  })
})

describe('a snapshot', () => {
  it('is made, listed, started from and deleted by the name that clients know', async () => {
    const sandbox = await create()
    const made = await json<{ snapshotID: string }>(
      await platform.call('POST', at(sandbox, '/snapshots'), { name: 'team/ready' }),
      201,
    )
    expect(made).toEqual({ snapshotID: 'ready:default', names: ['ready:default'] })
    expect((await info(sandbox)).state).toBe('running')
    const unnamed = await json<{ snapshotID: string }>(await platform.call('POST', at(sandbox, '/snapshots')), 201)
    const listed = async (query = '') => {
      const response = await platform.call('GET', `/snapshots?${query}`)
      return { ids: (await json<(typeof made)[]>(response, 200)).map(({ snapshotID }) => snapshotID), response }
    }
    expect((await listed()).ids).toEqual([unnamed.snapshotID, 'ready:default'])
    expect((await listed(`sandboxID=${sandbox.sandboxID}&name=ready:default`)).ids).toEqual(['ready:default'])
    const first = await listed('limit=1')
    const next = first.response.headers.get('x-next-token')
    expect((await listed(`limit=1&nextToken=${next}`)).ids).toEqual(['ready:default'])
    expect((await create({ templateID: made.snapshotID })).templateID).toBe('ready')
    expect(await json<object>(await platform.call('GET', '/templates/aliases/ready'), 200)).toEqual({
      templateID: 'ready',
      public: false,
    })
    expect((await platform.call('DELETE', `/templates/${encodeURIComponent('team/ready:default')}`)).status).toBe(204)
    expect((await refusal('DELETE', '/templates/ready')).code).toBe(404)
    expect((await refusal('DELETE', '/templates/base')).code).toBe(403)
    expect((await refusal('POST', '/v2/sandboxes', { templateID: made.snapshotID })).code).toBe(404)
  })
})

describe('a fork', () => {
  it('is a sandbox of its own, with a token and a life of its own', async () => {
    const source = await create({ autoPause: true, metadata: { a: '1' } })
    const copies = await json<{ sandbox: Sandbox }[]>(
      await platform.call('POST', at(source, '/fork'), { count: 2, timeout: 900 }),
      201,
    )
    const tokens = [source, ...copies.map(({ sandbox }) => sandbox)].map(({ envdAccessToken }) => envdAccessToken)
    expect(new Set(tokens).size).toBe(3)
    expect(tokens).not.toContain(undefined)
    for (const { sandbox } of copies) {
      expect(await info(sandbox)).toMatchObject({ metadata: { a: '1' }, lifecycle: { onTimeout: 'pause' } })
      expect(await secondsLeft(sandbox)).toBeGreaterThan(800)
    }
    expect(await secondsLeft(source)).toBeLessThanOrEqual(300)
  })
})

describe('the rest', () => {
  it('tells what a sandbox uses now, and nothing of one asleep', async () => {
    const sandbox = await create()
    const metrics = async (query = '') =>
      await json<object[]>(await platform.call('GET', at(sandbox, `/metrics${query}`)), 200)
    expect(await metrics()).toEqual([
      expect.objectContaining({ cpuCount: 1, cpuUsedPct: 1.5, memTotal: 512 * 2 ** 20, diskTotal: 2 ** 30 }),
    ])
    expect(await metrics('?start=0')).toHaveLength(1)
    expect(await metrics('?end=1')).toEqual([])
    await platform.call('POST', at(sandbox, '/pause'), {})
    expect(await metrics()).toEqual([])
  })

  it('tells what a sandbox has used in the time that is asked for, asleep or not', async () => {
    const sandbox = await create()
    const lastSec = Math.floor(Date.now() / 15_000) * 15 - 20
    const looks = Array.from({ length: 4 }, (_, index) => BigInt(lastSec - 15 + index * 5))
    const memBytes = 1024n * 2n ** 20n
    platform.host.used.set(
      sandbox.sandboxID,
      looks.map((atSec) => ({ atSec, cpuPct: 12.5, memBytes, diskBytes: 4096n })),
    )
    const metrics = async (query = '') =>
      await json<{ timestampUnix: number }[]>(await platform.call('GET', at(sandbox, `/metrics${query}`)), 200)
    expect((await metrics()).map(({ timestampUnix }) => timestampUnix)).toEqual(looks.map(Number))
    expect((await metrics())[0]).toEqual({
      ...{ timestamp: new Date(Number(looks[0]) * 1000).toISOString(), timestampUnix: Number(looks[0]) },
      ...{ cpuUsedPct: 12.5, cpuCount: 1, memUsed: 512 * 2 ** 20, memTotal: 512 * 2 ** 20, memCache: 0 },
      ...{ diskUsed: 4096, diskTotal: 5120 * 2 ** 20 },
    })
    expect(await metrics(`?start=${lastSec - 10}&end=${lastSec - 5}`)).toHaveLength(2)
    platform.host.usedUntilSec = lastSec + 20
    await platform.call('POST', at(sandbox, '/pause'), {})
    await expect.poll(metrics).toHaveLength(4)
  })

  it('replaces what a sandbox may reach, and takes back what is left out', async () => {
    const sandbox = await create({ allow_internet_access: false, network: { allowOut: ['1.1.1.1'] } })
    expect(await info(sandbox)).toMatchObject({
      allowInternetAccess: false,
      network: { allowOut: ['1.1.1.1'], denyOut: ['0.0.0.0/0'] },
    })
    const set = async (body: object) => (await platform.call('PUT', at(sandbox, '/network'), body)).status
    const egress = async () => await (await platform.call('GET', `/v1/capsules/${sandbox.sandboxID}/egress`)).json()
    expect(await set({ denyOut: ['9.9.9.9'] })).toBe(204)
    expect(await egress()).toEqual({
      policy: { internet: true, allow: [], deny: ['9.9.9.9'] },
      in_force: true,
      refused: [],
    })
    expect(await set({})).toBe(204)
    expect(await egress()).toMatchObject({ policy: { internet: true, allow: [], deny: [] }, in_force: true })
    const names = { allowOut: ['example.org', '*.Example.net'], denyOut: ['0.0.0.0/0'] }
    expect(await set(names)).toBe(204)
    const allow = ['example.org', '*.example.net']
    expect(await egress()).toMatchObject({ policy: { internet: false, allow, deny: [] } })
    expect(await info(sandbox)).toMatchObject({ network: { ...names, allowOut: allow } })
    expect((await refusal('PUT', at(sandbox, '/network'), { egressProxy: 'x' })).message).toMatch(/^egressProxy /)
    expect((await refusal('PUT', at(sandbox, '/network'), { allowOut: ['*.x'] })).code).toBe(400)
    expect((await refusal('POST', '/sandboxes', { templateID: 'base', network: { allowOut: ['*.x'] } })).code).toBe(400)
  })

  it('says that what a sandbox may reach holds only if it does, or if the sandbox sleeps', async () => {
    const sandbox = await create()
    const path = `/v1/capsules/${sandbox.sandboxID}`
    const inForce = () =>
      waitFor(
        async () => (await json<Egress>(await platform.call('GET', `${path}/egress`), 200)).in_force || undefined,
        { timeoutMs: 20_000, what: 'the policy to be in force' },
      )
    /** The host is away for the request, and once more, as the control plane may be the first to carry what is written. */
    const setWhileAway = async (address: string) => {
      for (let attempt = 0; attempt < 2; attempt++) {
        platform.host.failNext('egress', new AppError('host_unavailable', 'The host agent is starting.'))
      }
      return (await platform.call('PUT', at(sandbox, '/network'), { denyOut: [address] })).status
    }
    expect(await setWhileAway('9.9.9.9')).toBe(503)
    await inForce()
    const held = platform.host.holdNext('pause')
    const paused = platform.call('POST', `${path}/pause?wait_sec=30`)
    await held.reached
    const whilePausing = setWhileAway('9.9.9.8')
    const written = async () => (await platform.get(sandbox.sandboxID)).egress?.deny.includes('9.9.9.8') || undefined
    await waitFor(written, { timeoutMs: 20_000, what: 'the policy to be written' })
    held.release(new AppError('engine_failure', 'There is no room.'))
    expect([await whilePausing, (await paused).ok]).toEqual([503, false])
    await inForce()
    await json(await platform.call('POST', `${path}/pause?wait_sec=30`), 200)
    expect(await setWhileAway('9.9.9.7')).toBe(204)
    await inForce()
  })

  it('names team and templates', async () => {
    expect(await json<object[]>(await platform.call('GET', '/teams'), 200)).toEqual([
      { teamID: expect.stringMatching(/^team-/), name: expect.any(String), apiKey: '', isDefault: true },
    ])
    expect(await json<object[]>(await platform.call('GET', '/templates'), 200)).toContainEqual(
      expect.objectContaining({
        templateID: 'minimal',
        aliases: ['minimal', 'base'],
        public: true,
        buildStatus: 'ready',
      }),
    )
    const alias = await platform.call('GET', '/templates/aliases/base')
    expect(await json<object>(alias, 200)).toEqual({ templateID: 'minimal', public: true })
    expect((await refusal('GET', '/templates/aliases/nothing')).code).toBe(404)
    for (const body of [{}, { public: true }]) {
      const same = await json<object>(await platform.call('PATCH', '/v2/templates/base', body), 200)
      expect(same).toEqual({ names: ['minimal', 'base'] })
    }
    const taken = await refusal('PATCH', '/v2/templates/base', { public: false })
    expect([taken.code, taken.message]).toEqual([501, expect.stringContaining('public cannot be false')])
    expect((await refusal('PATCH', '/v2/templates/nothing', { public: false })).code).toBe(404)
  })

  it('refuses by name what there is not', async () => {
    for (const [method, path] of [
      ['POST', '/volumes'],
      ['GET', '/volumecontent/v/dir'],
      ['POST', '/templates'],
      ['POST', '/templates/x/builds/y'],
    ] as const) {
      const error = await refusal(method, path, method === 'GET' ? undefined : {})
      expect([path, error.code, /not supported/.test(error.message)]).toEqual([path, 501, true])
    }
  })

  it('answers in the form of its clients where nothing is, too', async () => {
    expect((await refusal('GET', '/sandboxes/a/b/c')).code).toBe(404)
    expect((await refusal('PATCH', '/v2/sandboxes')).code).toBe(405)
    expect((await refusal('POST', '/sandboxes', { templateID: 'base', timeout: -1 })).code).toBe(400)
    expect((await refusal('POST', '/sandboxes', { templateID: 'nothing' })).code).toBe(404)
    const ours = await platform.call('GET', '/v1/nothing')
    expect(await ours.json()).toHaveProperty('error.code', 'not_found')
  })
})

describe('the table in docs/e2b.md', () => {
  it('says what each route answers', async () => {
    const page = await readFile(new URL('../../../../docs/e2b.md', import.meta.url), 'utf8')
    const rows = [...page.matchAll(/^\| `(GET|POST|PUT|PATCH|DELETE) (\S+)` \| (yes|no) \|/gm)]
    expect(rows.length).toBeGreaterThan(25)
    for (const [, method = '', path = '', supported] of rows) {
      const url = path.replace('{id}', `cl-${'0'.repeat(25)}`).replaceAll(/\{\w+\}/g, 'x')
      const response = await platform.call(method, url, method === 'GET' ? undefined : {})
      const { message = '' } = (await response.json()) as { message?: string }
      const isThere = !/^There is no \/|is not possible here/.test(message)
      expect([method, path, isThere, response.status === 501]).toEqual([method, path, true, supported === 'no'])
    }
  })
})

describe('a key', () => {
  it('is needed everywhere, and does what its scopes allow', async () => {
    const sandbox = await create()
    const { key } = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { scopes: ['read'], format: 'e2b' }),
      201,
    )
    expect(key).toMatch(/^e2b_[0-9a-f]{40}$/)
    for (const [method, path, readable] of [
      ['GET', '/sandboxes', true],
      ['GET', '/v2/sandboxes', true],
      ['GET', at(sandbox), true],
      ['GET', at(sandbox, '/metrics'), true],
      ['GET', at(sandbox, '/logs'), true],
      ['GET', `/v2${at(sandbox, '/logs')}`, true],
      ['GET', '/snapshots', true],
      ['GET', '/templates', true],
      ['POST', '/v3/templates', false],
      ['POST', '/v2/templates', false],
      ['PATCH', '/v2/templates/x', false],
      ['POST', '/v2/templates/x/builds/y', false],
      ['GET', '/teams', true],
      ['POST', '/sandboxes', false],
      ['POST', '/v2/sandboxes', false],
      ['DELETE', at(sandbox), false],
      ['POST', at(sandbox, '/connect'), false],
      ['POST', `/v2${at(sandbox, '/connect')}`, false],
      ['POST', at(sandbox, '/timeout'), false],
      ['POST', at(sandbox, '/refreshes'), false],
      ['POST', at(sandbox, '/pause'), false],
      ['POST', at(sandbox, '/resume'), false],
      ['POST', at(sandbox, '/fork'), false],
      ['POST', at(sandbox, '/snapshots'), false],
      ['PUT', at(sandbox, '/network'), false],
      ['DELETE', '/templates/x', false],
      ['GET', '/secrets', true],
      ['POST', '/secrets', false],
      ['POST', '/secrets/x', false],
      ['DELETE', '/secrets/x', false],
      ['GET', '/volumes', false],
    ] as const) {
      const status = async (headers: Record<string, string>) => {
        const response = await fetch(platform.url + path, { method, headers })
        await response.arrayBuffer()
        return response.status
      }
      expect([method, path, await status({ 'x-api-key': 'e2b_nobody' })]).toEqual([method, path, 401])
      expect([method, path, await status({ 'x-api-key': key })]).toEqual([method, path, readable ? 200 : 403])
    }
  })
})
