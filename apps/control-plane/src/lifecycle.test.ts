import { AppError } from '@wrenn/base'
import type { Capsule, ErrorBody, ExecResult, ForkResult } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import type { OperationKind } from './store/schema.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

type Verb = 'pause' | 'resume' | 'fork'

const ask = (id: string, verb: Verb, { key, query = '', body }: { key?: string; query?: string; body?: object } = {}) =>
  platform.call('POST', `/v1/capsules/${id}/${verb}${query}`, body, key === undefined ? {} : { 'idempotency-key': key })
const pause = async (id: string) => await json<Capsule>(await ask(id, 'pause'), 200)
const resume = async (id: string) => await json<Capsule>(await ask(id, 'resume'), 200)
const destroy = (id: string) => platform.call('DELETE', `/v1/capsules/${id}`)
const exec = async (id: string, cmd: string, ...args: string[]) =>
  await json<ExecResult>(await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd, args }), 200)

async function refusal(response: Response, status: number): Promise<ErrorBody['error']> {
  return (await json<ErrorBody>(response, status)).error
}

async function inDatabase<T>(task: (db: ReturnType<typeof openDatabase>) => Promise<T>): Promise<T> {
  const db = openDatabase({ url: platform.databaseUrl })
  try {
    return await task(db)
  } finally {
    await db.destroy()
  }
}

const operationsOf = (id: string, kind: OperationKind) =>
  inDatabase((db) =>
    db.selectFrom('operations').selectAll().where('capsule_id', '=', id).where('kind', '=', kind).execute(),
  )

describe('pause and resume', () => {
  it('answer with the new status, and the capsule goes on where it was', async () => {
    const { id } = await platform.create()
    await exec(id, 'sh', '-c', 'echo kept > /tmp/kept')
    expect(await pause(id)).toMatchObject({
      status: 'paused',
      state: 'paused',
      pause_reason: 'request',
      durable: false,
      lifecycle_timings: [{ step: 'save' }],
    })
    expect((await platform.get(id)).paused_at).toBeDefined()
    expect(await resume(id)).toMatchObject({ status: 'running', state: 'running' })
    expect((await exec(id, 'cat', '/tmp/kept')).stdout).toBe('kept\n')
    await destroy(id)
  })

  it('are refused where they are not legal, with what is', async () => {
    const { id } = await platform.create()
    const awake = await refusal(await ask(id, 'resume'), 409)
    expect(awake).toMatchObject({ code: 'invalid_state', details: { state: 'running' } })
    expect(awake.message).toContain('running')
    expect(awake.message).toContain('pause')
    await pause(id)
    expect((await refusal(await ask(id, 'pause'), 409)).message).toContain('resume')
    const copied = await json<ForkResult>(await ask(id, 'fork'), 201)
    expect(copied.capsules).toMatchObject([{ status: 'running', parent_id: id }])
    await destroy(id)
    expect((await refusal(await ask(id, 'resume'), 409)).details).toMatchObject({ state: 'stopped' })
    expect((await refusal(await ask('cl-0000000000000000000000000', 'pause'), 404)).code).toBe('capsule_not_found')
  })

  it('show the state on the way when the caller does not wait, and go on', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const answer = await json<Capsule>(await ask(id, 'pause', { query: '?wait_sec=0' }), 200)
    expect(answer).toMatchObject({ status: 'running', state: 'pausing' })
    held.release()
    await platform.until(id, 'paused')
    await destroy(id)
  })

  it('join one another: one operation, the same answer', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const first = ask(id, 'pause')
    await held.reached
    const others = [ask(id, 'pause'), ask(id, 'pause', { key: 'join-1' }), ask(id, 'pause', { key: 'join-1' })]
    await expect.poll(() => operationsOf(id, 'pause')).toHaveLength(2)
    held.release()
    const answers = await Promise.all([first, ...others])
    const bodies = await Promise.all(answers.map((answer) => json<Capsule>(answer, 200)))
    for (const body of bodies) expect(body).toEqual(bodies[0])
    expect(bodies[0]?.status).toBe('paused')
    await destroy(id)
  })

  it('that join one which fails by what may pass can be asked for again with their key', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const first = ask(id, 'pause')
    await held.reached
    const joined = ask(id, 'pause', { key: 'join-2' })
    await expect.poll(() => operationsOf(id, 'pause')).toHaveLength(2)
    held.release(new AppError('engine_failure', 'The engine failed.'))
    expect((await refusal(await first, 500)).code).toBe('engine_failure')
    expect((await refusal(await joined, 500)).code).toBe('engine_failure')
    expect(await json<Capsule>(await ask(id, 'pause', { key: 'join-2' }), 200)).toMatchObject({ status: 'paused' })
    await destroy(id)
  })

  it('go on when the client hangs up', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const hangUp = new AbortController()
    const url = `${platform.url}/v1/capsules/${id}/pause`
    const asked = fetch(url, { method: 'POST', headers: { 'x-api-key': platform.key }, signal: hangUp.signal })
    await held.reached
    hangUp.abort()
    await expect(asked).rejects.toThrow()
    held.release()
    await platform.until(id, 'paused')
    await destroy(id)
  })

  it('leave the capsule as it was when they fail, and say why', async () => {
    const { id } = await platform.create()
    platform.host.failNext('pause', new AppError('disk_full', 'The pool is full.'))
    expect(await refusal(await ask(id, 'pause'), 507)).toMatchObject({
      code: 'disk_full',
      message: 'The pool is full.',
    })
    expect((await platform.get(id)).state).toBe('running')
    expect((await exec(id, 'echo', 'usable')).stdout).toBe('usable\n')
    await pause(id)
    platform.host.failNext('resume')
    expect((await refusal(await ask(id, 'resume'), 500)).code).toBe('engine_failure')
    expect((await platform.get(id)).state).toBe('paused')
    expect((await resume(id)).status).toBe('running')
    await destroy(id)
  })

  it('follow the host where it did what its answer denies', async () => {
    const { id } = await platform.create()
    platform.host.failNext('pause', undefined, 'after')
    expect((await pause(id)).status).toBe('paused')
    platform.host.failNext('resume', undefined, 'after')
    expect((await resume(id)).status).toBe('running')
    await destroy(id)
  })

  it('are overtaken by a destroy', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const paused = ask(id, 'pause')
    await held.reached
    const destroyed = destroy(id)
    await platform.until(id, 'stopping')
    held.release()
    expect((await destroyed).status).toBe(204)
    expect((await refusal(await paused, 409)).code).toBe('invalid_state')
    expect((await platform.get(id)).state).toBe('stopped')
    expect(platform.host.capsules.has(id)).toBe(false)
  })
})

describe('an idempotency key', () => {
  it('gives the answer it gave before, whatever became of the capsule since', async () => {
    const { id } = await platform.create()
    const first = await json<Capsule>(await ask(id, 'pause', { key: 'once' }), 200)
    await resume(id)
    expect(await json<Capsule>(await ask(id, 'pause', { key: 'once' }), 200)).toEqual(first)
    expect((await platform.get(id)).state).toBe('running')
    await destroy(id)
  })

  it('belongs to one request', async () => {
    const [one, two] = [await platform.create(), await platform.create()]
    await json(await ask(one.id, 'pause', { key: 'mine' }), 200)
    expect((await refusal(await ask(two.id, 'pause', { key: 'mine' }), 409)).code).toBe('idempotency_mismatch')
    await json(await ask(two.id, 'fork', { key: 'mine', body: { count: 1 } }), 201)
    const other = await ask(two.id, 'fork', { key: 'mine', body: { count: 2 } })
    expect((await refusal(other, 409)).code).toBe('idempotency_mismatch')
    for (const { id } of [one, two]) await destroy(id)
  })

  it('makes one of requests that come at once', async () => {
    const { id } = await platform.create()
    const answers = await Promise.all(
      Array.from({ length: 6 }, () => ask(id, 'fork', { key: 'same', body: { count: 2 } })),
    )
    const bodies = await Promise.all(answers.map((answer) => json<ForkResult>(answer, 201)))
    for (const body of bodies) expect(body).toEqual(bodies[0])
    expect(await operationsOf(id, 'fork')).toHaveLength(1)
    for (const copy of [{ id }, ...(bodies[0]?.capsules ?? [])]) await destroy(copy.id)
  })

  it('may be used again after a failure that may pass', async () => {
    const { id } = await platform.create()
    platform.host.failNext('pause')
    await refusal(await ask(id, 'pause', { key: 'again' }), 500)
    expect((await json<Capsule>(await ask(id, 'pause', { key: 'again' }), 200)).status).toBe('paused')
    await destroy(id)
  })
})

describe('fork', () => {
  it('makes running copies with what their source has, and what they are given', async () => {
    const source = await platform.create({ name: 'source', labels: { app: 'web' }, envs: { A: '1' }, timeout_sec: 900 })
    await exec(source.id, 'sh', '-c', 'echo same > /tmp/file')
    const body = { count: 2, name: 'copy', envs: { B: '2' } }
    const { capsules, timings } = await json<ForkResult>(await ask(source.id, 'fork', { body }), 201)
    expect(capsules.map(({ name }) => name)).toEqual(['copy-1', 'copy-2'])
    expect(timings).not.toEqual([])
    for (const { id } of capsules) {
      expect(await platform.get(id)).toMatchObject({
        state: 'running',
        parent_id: source.id,
        labels: { app: 'web' },
        timeout_sec: 900,
      })
      expect((await exec(id, 'sh', '-c', 'cat /tmp/file; echo $A$B')).stdout).toBe('same\n12\n')
    }
    expect((await platform.get(source.id)).state).toBe('running')
    for (const { id } of [source, ...capsules]) await destroy(id)
  })

  it('is refused when what it adds makes the environment of a copy larger than that of a capsule may be', async () => {
    const many = (prefix: string, count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, at) => [`${prefix}${at}`, 'é'.repeat(50_000)]))
    const { id } = await platform.create({ envs: many('A', 2) })
    const { message } = await refusal(await ask(id, 'fork', { body: { envs: many('B', 1) } }), 400)
    expect(message).toBe('envs is 300012; at most 262144 is allowed (bytes of environment).')
    await destroy(id)
  })

  it('leaves nothing on the host when it fails', async () => {
    const { id } = await platform.create({ labels: { failing: 'fork' } })
    for (const point of ['before', 'after'] as const) {
      platform.host.failNext('fork', undefined, point)
      const answer = await ask(id, 'fork', { body: { count: 3 } })
      expect((await refusal(answer, 500)).code).toBe('engine_failure')
      await expect
        .poll(() => [...platform.host.capsules.values()].filter(({ parentId }) => parentId === id))
        .toEqual([])
    }
    const left = await platform.call('GET', '/v1/capsules?label=failing=fork&status=all')
    const states = (await json<Capsule[]>(left, 200)).map(({ state }) => state)
    expect(states.filter((state) => state === 'running')).toHaveLength(1)
    expect(states.filter((state) => state === 'error')).toHaveLength(6)
    await destroy(id)
  })

  it('shows the copies starting when the caller does not wait; calls on them do', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('fork')
    const { capsules } = await json<ForkResult>(await ask(id, 'fork', { query: '?wait_sec=0' }), 202)
    expect(capsules).toMatchObject([{ state: 'starting', parent_id: id }])
    const copy = capsules[0]?.id ?? ''
    const output = exec(copy, 'echo', 'here')
    held.release()
    expect((await output).stdout).toBe('here\n')
    for (const one of [id, copy]) await destroy(one)
  })

  it('keeps away from a copy that was destroyed before it ran', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('fork')
    const asked = ask(id, 'fork', { body: { count: 2 } })
    await held.reached
    const list = await platform.call('GET', '/v1/capsules?status=starting')
    const copies = (await json<Capsule[]>(list, 200)).filter(({ parent_id }) => parent_id === id)
    await destroy(copies[0]?.id ?? '')
    held.release()
    await json(await asked, 201)
    await platform.until(copies[1]?.id ?? '', 'running')
    expect((await platform.get(copies[0]?.id ?? '')).state).toBe('stopped')
    await expect.poll(() => platform.host.capsules.has(copies[0]?.id ?? '')).toBe(false)
    for (const one of [id, copies[1]?.id ?? '']) await destroy(one)
  })
})

describe('a change', () => {
  it('replaces what it names and leaves the rest', async () => {
    const { id } = await platform.create({ name: 'old', labels: { a: '1' }, timeout_sec: 60 })
    const path = `/v1/capsules/${id}`
    const changed = await platform.call('PATCH', path, { name: null, labels: { b: '2' }, auto_resume: true })
    expect(await json(changed, 200)).toMatchObject({ labels: { b: '2' }, timeout_sec: 60, auto_resume: true })
    const capsule = await platform.get(id)
    expect(capsule.name).toBeUndefined()
    expect(capsule.pauses_at).toBeDefined()
    const timeless = await json<Capsule>(await platform.call('PATCH', path, { timeout_sec: 0 }), 200)
    expect(timeless.pauses_at).toBeUndefined()
    await destroy(id)
    expect((await refusal(await platform.call('PATCH', path, { name: 'x' }), 409)).code).toBe('invalid_state')
  })
})

describe('eight clients at once', () => {
  it('get one answer each, and leave a legal state', async () => {
    const clients = 8
    const rounds = 6
    const { id } = await platform.create({ labels: { crowd: 'yes' } })
    const verbs = ['pause', 'resume', 'fork', 'pause', 'resume', 'checkpoints'] as const
    const statuses: number[] = []
    const client = async (number: number): Promise<void> => {
      for (let round = 0; round < rounds; round++) {
        const verb = verbs[(number + round * 5) % verbs.length] ?? 'pause'
        const last = number === 7 && round === rounds - 1
        const answer = await (last
          ? platform.call('DELETE', `/v1/capsules/${id}`)
          : platform.call('POST', `/v1/capsules/${id}/${verb}?wait_sec=20`))
        statuses.push(answer.status)
        await answer.arrayBuffer()
      }
    }
    await Promise.all(Array.from({ length: clients }, (_, number) => client(number)))
    expect(statuses).toHaveLength(clients * rounds)
    expect(statuses.filter((status) => ![200, 201, 202, 204, 409].includes(status))).toEqual([])
    await platform.until(id, 'stopped')
    const running = await inDatabase((db) =>
      db.selectFrom('operations').select('id').where('capsule_id', '=', id).where('state', '=', 'running').execute(),
    )
    expect(running).toEqual([])
    const list = await platform.call('GET', '/v1/capsules?label=crowd=yes')
    const copies = await json<Capsule[]>(list, 200)
    for (const copy of copies) expect(copy.state).toBe('running')
    const onHost = [...platform.host.capsules.values()].filter(({ parentId }) => parentId === id)
    expect(onHost.map((copy) => copy.id).sort()).toEqual(copies.map((copy) => copy.id).sort())
    for (const copy of copies) await destroy(copy.id)
  }, 60_000)
})

describe('a control plane that dies', () => {
  /** As a process leaves it that was killed after it had recorded the request: the row is on its way, the lease is over. */
  const abandon = (
    id: string,
    kind: OperationKind,
    state: Capsule['state'] | undefined,
    params: object | null = null,
  ) =>
    inDatabase(async (db) => {
      const row = await db
        .updateTable('capsules')
        .set((eb) => ({ ...(state === undefined ? {} : { state }), generation: eb('generation', '+', 1) }))
        .where('id', '=', id)
        .returningAll()
        .executeTakeFirstOrThrow()
      await db
        .insertInto('operations')
        .values({
          id: `op-${kind}-${id}`,
          team_id: row.team_id,
          capsule_id: id,
          kind,
          idempotency_key: `${kind}-${id}`,
          request_hash: '',
          params: params === null ? null : JSON.stringify(params),
          state: 'running',
          generation: row.generation,
          lease_until: new Date(0),
        })
        .execute()
    })

  it.each(['before', 'after'])('has its pause finished when it died %s the host had done it', async (when) => {
    const { id } = await platform.create()
    if (when === 'after') await pause(id)
    await abandon(id, 'pause', 'pausing', { reason: 'request' })
    await platform.until(id, 'paused')
    expect(await operationsOf(id, 'pause')).toContainEqual(expect.objectContaining({ state: 'succeeded' }))
    await destroy(id)
  })

  it.each(['before', 'after'])('has its resume finished when it died %s the host had done it', async (when) => {
    const { id } = await platform.create()
    if (when === 'before') await pause(id)
    await abandon(id, 'resume', 'resuming')
    await platform.until(id, 'running')
    expect((await exec(id, 'echo', 'on')).stdout).toBe('on\n')
    await destroy(id)
  })

  it('has its fork finished once', async () => {
    const { id } = await platform.create()
    const { capsules } = await json<ForkResult>(await ask(id, 'fork', { body: { count: 2 } }), 201)
    const copies = capsules.map((copy) => copy.id)
    await inDatabase((db) => db.updateTable('capsules').set({ state: 'starting' }).where('id', 'in', copies).execute())
    await abandon(id, 'fork', undefined, { copies, envs: {} })
    for (const copy of copies) await platform.until(copy, 'running')
    expect([...platform.host.capsules.values()].filter(({ parentId }) => parentId === id)).toHaveLength(2)
    for (const one of [id, ...copies]) await destroy(one)
  })

  it('lets another finish what it was in the middle of', async () => {
    const { id } = await platform.create()
    const held = platform.host.holdNext('pause')
    const asked = ask(id, 'pause').catch(() => undefined)
    await held.reached
    await platform.restart()
    await asked
    held.release()
    await inDatabase((db) =>
      db
        .updateTable('operations')
        .set({ lease_until: new Date(0) })
        .execute(),
    )
    await platform.until(id, 'paused')
    await destroy(id)
  })
})
