import { capsuleIds, silentLogger } from '@wrenn/base'
import type { Capsule, ErrorBody } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

/** A busy machine is silent for a second too: only tests of silence may take that for it. */
const soonSilent = { WRENN_HOST_SILENT_SEC: '1' }

let postgres: TestPostgres
let platform: Platform

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url, env: soonSilent })
}, 30_000)
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
})

async function inDatabase<T>(task: (db: ReturnType<typeof openDatabase>) => Promise<T>): Promise<T> {
  const db = openDatabase({ url: platform.databaseUrl })
  try {
    return await task(db)
  } finally {
    await db.destroy()
  }
}

describe('a guest that dies', () => {
  it('is seen at once, with what killed it', async () => {
    const { id } = await platform.create()
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.', consoleTail: 'panic\0!' })
    const dead = await platform.until(id, 'error')
    expect(dead).toMatchObject({ status: 'error', exit: { cause: 'guest_panic', console_tail: 'panic!' } })
    const exec = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'true' })
    expect((await json<ErrorBody>(exec, 502)).error.code).toBe('guest_died')
    expect((await platform.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204)
    expect((await platform.get(id)).state).toBe('stopped')
  })

  it('is seen also when its row moves in the same moment', async () => {
    const { id } = await platform.create()
    await inDatabase(async (db) => {
      for (let moves = 0; moves < 60; moves++) {
        if (moves === 20) platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
        await db
          .updateTable('capsules')
          .set(({ eb }) => ({ generation: eb('generation', '+', 1) }))
          .where('id', '=', id)
          .execute()
      }
    })
    // Sooner than the next comparison of everything.
    await expect.poll(async () => (await platform.get(id)).state, { timeout: 10_000 }).toBe('error')
  })

  it('fails the command that runs in it', async () => {
    const { id } = await platform.create()
    const running = platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'sleep', args: ['600'], timeout_sec: 0 })
    await expect.poll(() => platform.host.capsules.get(id)?.processes.length).toBe(1)
    platform.host.die(id, { cause: 'oom_killed', message: 'Out of memory.' })
    expect((await json<ErrorBody>(await running, 502)).error.code).toBe('guest_died')
  })
})

describe('a silent host', () => {
  it('makes its capsules missing, not stopped, and running again when it is back', async () => {
    const { id } = await platform.create()
    await platform.host.stop()
    await platform.until(id, 'missing')
    const ready = await fetch(`${platform.url}/ready`)
    expect(await json(ready, 503)).toMatchObject({
      ready: false,
      checks: { database: { ok: true }, host: { ok: false } },
    })
    await platform.host.start()
    await platform.until(id, 'running')
    const exec = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'echo', args: ['back'] })
    expect(await json(exec, 200)).toMatchObject({ stdout: 'back\n' })
  })

  it('gets a destroy when it is back', async () => {
    const { id } = await platform.create()
    await platform.host.stop()
    expect((await platform.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204)
    await platform.host.start()
    await platform.until(id, 'stopped')
    expect(platform.host.capsules.has(id)).toBe(false)
  })
})

describe('a destroy that waits for a silent host', () => {
  it('is joined by those that come after it', async () => {
    const { id } = await platform.create()
    await platform.host.stop()
    const destroy = async () => (await platform.call('DELETE', `/v1/capsules/${id}`)).status
    expect(await Promise.all([destroy(), destroy(), destroy()])).toEqual([204, 204, 204])
    const operations = await inDatabase((db) =>
      db.selectFrom('operations').select('id').where('kind', '=', 'destroy').where('capsule_id', '=', id).execute(),
    )
    expect(operations).toHaveLength(1)
    await platform.host.start()
    await platform.until(id, 'stopped')
  })
})

describe('a capsule that its host pauses by itself', () => {
  it('is paused in the record too, with the reason, and can be resumed', async () => {
    const { id } = await platform.create()
    await platform.host.pauseByItself(id, 'memory_pressure')
    expect(await platform.until(id, 'paused')).toMatchObject({ pause_reason: 'memory_pressure', durable: false })
    await platform.host.makeDurable(id)
    await expect.poll(async () => await platform.get(id)).toMatchObject({ durable: true })
    expect(await json(await platform.call('POST', `/v1/capsules/${id}/resume`), 200)).toMatchObject({
      status: 'running',
    })
  })

  it('is missing while its host is silent, and comes back paused', async () => {
    const { id } = await platform.create()
    await json(await platform.call('POST', `/v1/capsules/${id}/pause`), 200)
    await platform.host.stop()
    await platform.until(id, 'missing')
    const refused = await platform.call('POST', `/v1/capsules/${id}/resume`)
    expect((await json<ErrorBody>(refused, 409)).error.code).toBe('invalid_state')
    await platform.host.start()
    expect(await platform.until(id, 'paused')).toMatchObject({ pause_reason: 'request' })
    await json(await platform.call('POST', `/v1/capsules/${id}/resume`), 200)
  })

  it('may come back paused though it ran when its host fell silent', async () => {
    const { id } = await platform.create()
    await platform.host.stop()
    await platform.until(id, 'missing')
    await platform.host.pauseByItself(id, 'pool_low')
    await platform.host.start()
    expect(await platform.until(id, 'paused')).toMatchObject({ pause_reason: 'pool_low' })
  })

  it('can be resumed from its saved state when its guest has died', async () => {
    const { id } = await platform.create()
    await json(await platform.call('POST', `/v1/capsules/${id}/pause`), 200)
    await platform.host.makeDurable(id)
    await json(await platform.call('POST', `/v1/capsules/${id}/resume`), 200)
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await platform.until(id, 'error')
    const back = await json<Capsule>(await platform.call('POST', `/v1/capsules/${id}/resume`), 200)
    expect(back).toMatchObject({ status: 'running', notice: expect.any(String) })
    expect(back.exit).toBeUndefined()
    const fresh = await platform.create()
    platform.host.die(fresh.id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await platform.until(fresh.id, 'error')
    const refused = await platform.call('POST', `/v1/capsules/${fresh.id}/resume`)
    expect((await json<ErrorBody>(refused, 409)).error.code).toBe('invalid_state')
    expect(await platform.get(fresh.id)).toMatchObject({ state: 'error', exit: { cause: 'guest_panic' } })
  })
})

describe('what host and database disagree about', () => {
  it('lets the record of a paused capsule follow a host that runs it', async () => {
    const { id } = await platform.create()
    await inDatabase((db) =>
      db.updateTable('capsules').set({ state: 'paused', desired_state: 'paused' }).where('id', '=', id).execute(),
    )
    await platform.restart()
    await platform.until(id, 'running')
    const exec = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'echo', args: ['still'] })
    expect(await json(exec, 200)).toMatchObject({ stdout: 'still\n' })
  })

  it.each(['running', 'paused'])(
    'gives up a capsule that was %s, when its host answers without it for long',
    async (was) => {
      await using strict = await startPlatform({
        databaseUrl: postgres.url,
        env: { ...soonSilent, WRENN_LOST_GRACE_SEC: '0' },
      })
      const { id } = await strict.create()
      if (was === 'paused') await json(await strict.call('POST', `/v1/capsules/${id}/pause`), 200)
      await strict.host.remove(id)
      const lost = await strict.until(id, 'error')
      expect(lost.exit).toMatchObject({ cause: 'lost_on_host', message: expect.stringContaining('host') })
      const resume = await strict.call('POST', `/v1/capsules/${id}/resume`)
      expect((await json<ErrorBody>(resume, 409)).error.message).toContain('no saved state')
      expect((await strict.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204)
      await strict.until(id, 'stopped')
    },
  )

  it('tells once of checkpoints and snapshots that the database does not know, and keeps them', async () => {
    const events: string[] = []
    const warn = (_facts: object, event: string): void => void events.push(event)
    await using noisy = await startPlatform({
      databaseUrl: postgres.url,
      env: soonSilent,
      logger: { ...silentLogger, warn },
    })
    const { id } = await noisy.create()
    await json(await noisy.call('POST', `/v1/capsules/${id}/checkpoints`), 201)
    await json(await noisy.call('POST', '/v1/snapshots', { capsule_id: id }), 201)
    const db = openDatabase({ url: noisy.databaseUrl })
    await db.deleteFrom('checkpoints').execute()
    await db.deleteFrom('snapshots').execute()
    await db.destroy()
    await noisy.restart()
    // A capsule that goes is a reason to compare everything again.
    await noisy.host.remove((await noisy.create()).id)
    await noisy.host.remove((await noisy.create()).id)
    await expect.poll(() => events.filter((event) => event === 'capsule.missing')).toHaveLength(2)
    for (const told of ['checkpoint.unknown_on_host', 'snapshot.unknown_on_host']) {
      await expect.poll(() => events.filter((event) => event === told)).toHaveLength(1)
    }
    expect(noisy.host.capsules.get(id)?.checkpoints.size).toBe(1)
    expect(noisy.host.snapshots.size).toBe(1)
  })

  it('has snapshots go that came to be on their host after they had been deleted', async () => {
    const { id } = await platform.create()
    await json(await platform.call('POST', '/v1/snapshots', { capsule_id: id, name: 'late' }), 201)
    const [made] = [...platform.host.snapshots]
    await platform.call('DELETE', '/v1/snapshots/late')
    expect(platform.host.snapshots.size).toBe(0)
    if (made === undefined) throw new Error('the snapshot was on the host')
    platform.host.snapshots.set(...made)
    await platform.restart()
    await expect.poll(() => platform.host.snapshots.size).toBe(0)
  })

  it('takes back a capsule that turns up in time', async () => {
    const { id } = await platform.create()
    const kept = platform.host.capsules.get(id)
    if (kept === undefined) throw new Error('the capsule is on the host')
    platform.host.capsules.delete(id)
    platform.host.changes.emit('change', { removed: id })
    await platform.until(id, 'missing')
    platform.host.capsules.set(id, kept)
    platform.host.announce(kept)
    await platform.until(id, 'running')
  })

  it('says on which host a capsule is as soon as it runs', async () => {
    expect(await platform.create()).toMatchObject({ host_id: platform.host.hostId })
  })

  it('leaves a capsule alone that the database does not know', async () => {
    const id = capsuleIds.create()
    const stranger = await platform.host.addCapsule(id)
    stranger.state = 'running'
    platform.host.announce(stranger)
    await platform.restart()
    await platform.create()
    expect(platform.host.capsules.has(id)).toBe(true)
  })

  it('destroys what the database knows as stopped', async () => {
    const { id } = await platform.create()
    await platform.call('DELETE', `/v1/capsules/${id}`)
    const ghost = await platform.host.addCapsule(id)
    ghost.state = 'running'
    platform.host.announce(ghost)
    await expect.poll(() => platform.host.capsules.has(id)).toBe(false)
  })

  it('marks a capsule missing that its host no longer has', async () => {
    const { id } = await platform.create()
    await platform.host.remove(id)
    await platform.until(id, 'missing')
  })
})

describe('a control plane that dies', () => {
  /** As a process leaves it that was killed between its steps: the operation runs, its lease is over. */
  const orphan = (id: string, state: 'pending' | 'starting' | 'stopping') =>
    inDatabase(async (db) => {
      const kind = state === 'stopping' ? 'destroy' : 'create'
      const row = await db
        .updateTable('capsules')
        .set({ state })
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirstOrThrow()
      await db.deleteFrom('operations').where('capsule_id', '=', id).execute()
      await db
        .insertInto('operations')
        .values({
          id: `op-${id}`,
          team_id: row.team_id,
          capsule_id: id,
          kind,
          idempotency_key: null,
          request_hash: '',
          state: 'running',
          generation: row.generation,
          lease_until: new Date(0),
        })
        .execute()
    })

  it.each(['pending', 'starting'] as const)('finishes a create that was left %s', async (state) => {
    const { id } = await platform.create({ envs: { A: 'kept' } })
    await platform.host.remove(id)
    await orphan(id, state)
    await platform.until(id, 'running')
    const exec = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'printenv', args: ['A'] })
    expect(await json(exec, 200)).toMatchObject({ stdout: 'kept\n' })
  })

  it('finishes a destroy that was left stopping', async () => {
    const { id } = await platform.create()
    await orphan(id, 'stopping')
    await platform.until(id, 'stopped')
    expect(platform.host.capsules.has(id)).toBe(false)
  })

  it('keeps capsules, keys and labels over a restart', async () => {
    const { id } = await platform.create({ labels: { a: 'b' } })
    await platform.restart()
    expect(await platform.get(id)).toMatchObject({ state: 'running', labels: { a: 'b' } })
    const exec = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'true' })
    expect(await json(exec, 200)).toMatchObject({ exit_code: 0 })
  })
})

describe('a create whose host goes away', () => {
  it('succeeds when the host agent was only restarted, before it answered or before it was asked', async () => {
    const release = platform.host.holdCreates()
    const underWay = platform.call('POST', '/v1/capsules', { name: 'under-way' })
    await expect.poll(() => platform.host.creates).toBe(1)
    await platform.host.stop()
    const asked = platform.call('POST', '/v1/capsules', { name: 'asked' })
    await expect.poll(async () => await createsUnderWay()).toBe(2)
    release()
    // A host agent that starts gives up what it had not finished.
    for (const id of [...platform.host.capsules.keys()]) await platform.host.remove(id)
    await platform.host.start()
    for (const answer of [underWay, asked]) {
      await platform.until((await json<Capsule>(await answer, 201)).id, 'running')
    }
    const capsules = await json<Capsule[]>(await platform.call('GET', '/v1/capsules?status=all'), 200)
    expect(capsules.map(({ name, state }) => `${name} ${state}`).sort()).toEqual(['asked running', 'under-way running'])
  })

  it('fails after a while, leaves nothing, and its key can be used again', async () => {
    await using short = await startPlatform({ databaseUrl: postgres.url, env: { WRENN_CREATE_RETRY_SEC: '1' } })
    await short.create()
    await short.host.stop()
    const again = () => short.call('POST', '/v1/capsules', { name: 'late' }, { 'idempotency-key': 'late' })
    expect((await json<ErrorBody>(await again(), 503)).error.code).toBe('host_unavailable')
    await short.host.start()
    const { id } = await json<Capsule>(await again(), 201)
    expect([...short.host.capsules.keys()]).toContain(id)
    expect(short.host.capsules.size).toBe(2)
  })

  const createsUnderWay = () =>
    inDatabase(async (db) => {
      const rows = await db
        .selectFrom('operations')
        .select('id')
        .where('kind', '=', 'create')
        .where('state', '=', 'running')
        .execute()
      return rows.length
    })
})

describe('a create that is destroyed before it ran', () => {
  it('leaves nothing on the host', async () => {
    const release = platform.host.holdCreates()
    const slow = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0', {}), 201)
    await expect.poll(() => platform.host.creates).toBe(1)
    const destroyed = platform.call('DELETE', `/v1/capsules/${slow.id}`)
    await destroyed
    release()
    await platform.until(slow.id, 'stopped')
    await expect.poll(() => platform.host.capsules.size).toBe(0)
  })
})

describe('teams', () => {
  it('see nothing of each other', async () => {
    const { id } = await platform.create()
    await json(await platform.call('POST', `/v1/capsules/${id}/checkpoints`, { name: 'theirs' }), 201)
    await json(await platform.call('POST', '/v1/snapshots', { capsule_id: id, name: 'theirs' }), 201)
    await inDatabase(async (db) => {
      await db.insertInto('teams').values({ id: 'team-other', name: 'Other' }).execute()
      await db.updateTable('capsules').set({ team_id: 'team-other' }).where('id', '=', id).execute()
      await db.updateTable('snapshots').set({ team_id: 'team-other' }).execute()
    })
    expect(await json(await platform.call('GET', '/v1/snapshots?type=snapshot'), 200)).toEqual([])
    const foreign = [
      platform.call('POST', '/v1/capsules', { template: 'theirs' }),
      platform.call('POST', '/v1/snapshots', { capsule_id: id }),
      platform.call('DELETE', '/v1/snapshots/theirs'),
    ]
    expect((await Promise.all(foreign)).map(({ status }) => status)).toEqual([404, 404, 404])
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/ping'],
      ['GET', '/processes'],
      ['GET', '/metrics'],
      ['GET', '/files?path=/tmp'],
      ['POST', '/pause'],
      ['POST', '/resume'],
      ['POST', '/fork'],
      ['PATCH', ''],
      ['GET', '/checkpoints'],
      ['POST', '/checkpoints'],
      ['DELETE', '/checkpoints/theirs'],
      ['POST', '/checkpoints/theirs/rollback'],
      ['GET', '/checkpoints/theirs/diff/current'],
    ] as const) {
      const response = await platform.call(method, `/v1/capsules/${id}${path}`)
      expect((await json<ErrorBody>(response, 404)).error.code, `${method} ${path}`).toBe('capsule_not_found')
    }
    expect(await json(await platform.call('GET', '/v1/capsules?status=all'), 200)).toEqual([])
    expect(await platform.open(`/v1/capsules/${id}/pty`).frame()).toMatchObject({ code: 'capsule_not_found' })
  })
})
