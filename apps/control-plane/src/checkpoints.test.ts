import { AppError } from '@wrenn/base'
import type { Capsule, Checkpoint, DiffResult, ErrorBody, ExecResult, ForkResult, Template } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let id: string

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const at = (path: string): string => `/v1/capsules/${id}${path}`
const shell = async (script: string): Promise<string> => {
  const answer = await platform.call('POST', at('/exec'), { cmd: 'sh', args: ['-c', script] })
  return (await json<ExecResult>(answer, 200)).stdout
}
const save = async (body: object = {}) =>
  await json<Checkpoint>(await platform.call('POST', at('/checkpoints'), body), 201)
const rollback = (ref: string, headers = {}) =>
  platform.call('POST', at(`/checkpoints/${ref}/rollback`), undefined, headers)
const list = async () => await json<Checkpoint[]>(await platform.call('GET', at('/checkpoints')), 200)
const code = async (response: Response, status: number) => (await json<ErrorBody>(response, status)).error.code
beforeEach(async () => {
  if (id !== undefined) await platform.call('DELETE', `/v1/capsules/${id}`)
  id = (await platform.create()).id
})

describe('checkpoints', () => {
  it('are numbered or named, form a tree, and say on which the capsule stands', async () => {
    const first = await save()
    const second = await save({ name: 'before-migration' })
    expect(first).toMatchObject({ name: 'checkpoint-1', current: true, pause_window_ms: expect.any(Number) })
    expect(second).toMatchObject({ name: 'before-migration', parent_id: first.id })
    await json(await rollback('checkpoint-1'), 200)
    const third = await save()
    expect(third).toMatchObject({ name: 'checkpoint-2', parent_id: first.id })
    expect((await list()).map(({ name, current }) => [name, current])).toEqual([
      ['checkpoint-1', false],
      ['before-migration', false],
      ['checkpoint-2', true],
    ])
    expect(await platform.get(id)).toMatchObject({ checkpoint_id: third.id })
  })

  it('are found by id and by name', async () => {
    const made = await save({ name: 'here' })
    for (const ref of [made.id, 'here']) {
      expect(await json(await platform.call('GET', at(`/checkpoints/${ref}`)), 200)).toMatchObject({ id: made.id })
    }
    expect(await code(await platform.call('GET', at('/checkpoints/nowhere')), 404)).toBe('checkpoint_not_found')
  })

  it('need a name of their own', async () => {
    await save({ name: 'taken' })
    const make = (name: string) => platform.call('POST', at('/checkpoints'), { name })
    expect(await code(await make('taken'), 409)).toBe('conflict')
    expect(await code(await make('current'), 400)).toBe('invalid_request')
    expect(await code(await make(`cp-${'0'.repeat(25)}`), 400)).toBe('invalid_request')
    expect(await code(await make('a/b'), 400)).toBe('invalid_request')
  })

  it('leave their children to their parent when they go', async () => {
    const [first, second, third] = [await save(), await save(), await save()]
    expect((await platform.call('DELETE', at(`/checkpoints/${second.id}`))).status).toBe(204)
    expect((await list()).map((checkpoint) => [checkpoint.id, checkpoint.parent_id])).toEqual([
      [first.id, undefined],
      [third.id, first.id],
    ])
    await platform.call('DELETE', at(`/checkpoints/${third.name}`))
    expect(await platform.get(id)).toMatchObject({ checkpoint_id: first.id })
    expect(await code(await platform.call('DELETE', at(`/checkpoints/${third.id}`)), 404)).toBe('checkpoint_not_found')
    expect(platform.host.capsules.get(id)?.checkpoints.size).toBe(1)
  })

  it('are not there when they could not be made, and their name is free', async () => {
    for (const point of ['before', 'after'] as const) {
      platform.host.failNext('checkpoint', undefined, point)
      const answer = await platform.call('POST', at('/checkpoints'), { name: 'again' })
      expect(await code(answer, 500)).toBe('engine_failure')
    }
    expect(await list()).toEqual([])
    await expect.poll(() => platform.host.capsules.get(id)?.checkpoints.size).toBe(0)
    await save({ name: 'again' })
  })

  it('answer 202 when they take longer than the caller waits, and are listed when they are made', async () => {
    const held = platform.host.holdNext('checkpoint')
    const early = await platform.call('POST', at('/checkpoints?wait_sec=0'), { name: 'slow' })
    expect(await json(early, 202)).toMatchObject({ name: 'slow', durable: false })
    expect(await list()).toEqual([])
    expect(await code(await rollback('slow'), 409)).toBe('invalid_state')
    held.release()
    await expect.poll(async () => (await list()).map(({ name }) => name)).toEqual(['slow'])
  })

  it('become durable when their host says so', async () => {
    expect(await save()).toMatchObject({ durable: false })
    await platform.host.makeDurable(id)
    await expect.poll(async () => (await list())[0]).toMatchObject({ durable: true, durable_at: expect.any(String) })
  })

  it('go with their capsule', async () => {
    await save()
    await platform.call('DELETE', at(''))
    expect(await list()).toEqual([])
    expect(await code(await platform.call('POST', at('/checkpoints')), 409)).toBe('invalid_state')
  })
})

describe('rollback', () => {
  it('brings files back under the same id, once for one key', async () => {
    await shell('echo before > ~/file')
    const { id: point } = await save()
    await shell('rm ~/file')
    const key = { 'idempotency-key': `back-${id}` }
    const back = await json<Capsule>(await rollback(point, key), 200)
    expect(back).toMatchObject({
      id,
      status: 'running',
      checkpoint_id: point,
      lifecycle_timings: [{ step: 'restore' }],
    })
    expect(await shell('cat ~/file')).toBe('before\n')
    await shell('rm ~/file')
    expect(await json(await rollback(point, key), 200)).toEqual(back)
    expect(await shell('ls ~')).toBe('')
  })

  it('leaves a paused capsule paused', async () => {
    await shell('echo before > ~/file')
    await save({ name: 'point' })
    await shell('rm ~/file')
    await json(await platform.call('POST', at('/pause')), 200)
    expect(await json(await rollback('point'), 200)).toMatchObject({ status: 'paused' })
    await json(await platform.call('POST', at('/resume')), 200)
    expect(await shell('cat ~/file')).toBe('before\n')
  })

  it('keeps its checkpoint from being deleted meanwhile', async () => {
    await save({ name: 'point' })
    const held = platform.host.holdNext('rollback')
    const rolling = rollback('point')
    await held.reached
    expect(await code(await platform.call('DELETE', at('/checkpoints/point')), 409)).toBe('in_use')
    held.release()
    await json(await rolling, 200)
    expect((await platform.call('DELETE', at('/checkpoints/point'))).status).toBe(204)
  })

  it.each(['it', 'another'])('is done once when its control plane dies in it and %s was current', async (current) => {
    await save({ name: 'point' })
    if (current === 'another') await save()
    const held = platform.host.holdNext('rollback', 'after')
    const asked = rollback('point').catch(() => undefined)
    await held.reached
    await platform.restart()
    await asked
    await shell('echo since > ~/file')
    held.release()
    const db = openDatabase({ url: platform.databaseUrl })
    const mine = db.selectFrom('operations').select('state').where('capsule_id', '=', id).where('kind', '=', 'rollback')
    await db
      .updateTable('operations')
      .set({ lease_until: new Date(0) })
      .where('capsule_id', '=', id)
      .execute()
    await expect.poll(() => mine.execute(), { timeout: 20_000 }).toEqual([{ state: 'succeeded' }])
    await db.destroy()
    expect(await shell('cat ~/file')).toBe('since\n')
    expect(await platform.get(id)).toMatchObject({ state: 'running', checkpoint_id: expect.any(String) })
  })

  it('that fails leaves the capsule as it is', async () => {
    await save({ name: 'point' })
    await shell('echo after > ~/file')
    platform.host.failNext('rollback')
    expect(await code(await rollback('point'), 500)).toBe('engine_failure')
    expect(await shell('cat ~/file')).toBe('after\n')
  })
})

describe('a rollback of a capsule whose guest ended', () => {
  const seen = async () => await platform.get(id)

  beforeEach(async () => {
    await shell('echo before > ~/file')
    await save({ name: 'point' })
    await shell('echo after > ~/file')
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await expect.poll(async () => (await seen()).state).toBe('error')
  })

  it('makes it run again, also from an older checkpoint than the one it stands on', async () => {
    const back = await json<Capsule>(await rollback('point'), 200)
    expect(back).toMatchObject({ id, state: 'running', lifecycle_timings: [{ step: 'restore' }] })
    expect(back.exit).toBeUndefined()
    await save({ name: 'later' })
    await shell('echo later > ~/file')
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await expect.poll(async () => (await seen()).state).toBe('error')
    await json(await rollback('point'), 200)
    expect(await shell('cat ~/file')).toBe('before\n')
    expect(await list()).toHaveLength(2)
  })

  it('is resuming meanwhile, and whoever uses it waits', async () => {
    const held = platform.host.holdNext('rollback')
    const rolling = rollback('point')
    await held.reached
    expect(await seen()).toMatchObject({ state: 'resuming', status: 'paused' })
    expect(await code(await rollback('point'), 409)).toBe('invalid_state')
    const used = shell('cat ~/file')
    held.release()
    expect(await used).toBe('before\n')
    await json(await rolling, 200)
  })

  it('that fails leaves it ended, and may be asked for again', async () => {
    platform.host.failNext('rollback')
    expect(await code(await rollback('point'), 500)).toBe('engine_failure')
    expect(await seen()).toMatchObject({ state: 'error', exit: { message: 'The kernel panicked.' } })
    await json(await rollback('point'), 200)
    expect(await shell('cat ~/file')).toBe('before\n')
  })

  it.each(['before', 'after'] as const)('is finished by the next control plane when one dies %s it', async (when) => {
    const held = platform.host.holdNext('rollback', when)
    const asked = rollback('point').catch(() => undefined)
    await held.reached
    await platform.restart()
    await asked
    held.release()
    const db = openDatabase({ url: platform.databaseUrl })
    await db
      .updateTable('operations')
      .set({ lease_until: new Date(0) })
      .where('state', '=', 'running')
      .execute()
    await db.destroy()
    await expect.poll(async () => (await seen()).state).toBe('running')
    expect(await shell('cat ~/file')).toBe('before\n')
  })

  it('needs room among the running capsules of its team', async () => {
    const db = openDatabase({ url: platform.databaseUrl })
    const { vcpus } = await seen()
    await db.updateTable('teams').set({ max_vcpus: vcpus }).execute()
    const other = await platform.create()
    expect(await code(await rollback('point'), 429)).toBe('pool_exhausted')
    expect((await seen()).state).toBe('error')
    await platform.call('DELETE', `/v1/capsules/${other.id}`)
    await expect.poll(async () => (await rollback('point')).status).toBe(200)
    await db.updateTable('teams').set({ max_vcpus: null }).execute()
    await db.destroy()
  })

  it('is refused once its host has lost it', async () => {
    const db = openDatabase({ url: platform.databaseUrl })
    await db.updateTable('capsules').set({ observed_state: 'absent' }).where('id', '=', id).execute()
    await db.destroy()
    expect(await code(await rollback('point'), 409)).toBe('invalid_state')
  })

  it('of one that dies while it is rolled back makes it run again, too', async () => {
    await json(await rollback('point'), 200)
    const held = platform.host.holdNext('rollback')
    const rolling = rollback('point')
    await held.reached
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await expect.poll(async () => (await seen()).state).toBe('error')
    held.release()
    expect(await json(await rolling, 200)).toMatchObject({ state: 'running' })
    expect((await seen()).state).toBe('running')
    expect(await shell('cat ~/file')).toBe('before\n')
  })
})

describe('diff', () => {
  it('lists what differs between two points, or a point and now, page by page', async () => {
    await shell('mkdir ~/d; echo 1 > ~/d/a; echo 1 > ~/d/b')
    const from = await save({ name: 'from' })
    await shell('echo 2 > ~/d/a; rm ~/d/b; echo 1 > ~/d/c')
    const to = await save({ name: 'to' })
    const whole = await json<DiffResult>(await platform.call('GET', at('/checkpoints/from/diff/to?path=/root/d')), 200)
    expect(whole).toMatchObject({ from: from.id, to: to.id })
    const files = whole.changes.filter(({ type }) => type === 'file')
    expect(files.map(({ path, change }) => [path, change])).toEqual([
      ['/root/d/a', 'changed'],
      ['/root/d/b', 'removed'],
      ['/root/d/c', 'added'],
    ])
    expect(whole.next_cursor).toBeUndefined()
    const pages: string[] = []
    let query = 'limit=1&path=/root/d'
    for (;;) {
      const answer = await platform.call('GET', at(`/checkpoints/${from.id}/diff/to?${query}`))
      const page = await json<DiffResult>(answer, 200)
      pages.push(...page.changes.map(({ path }) => path))
      if (page.next_cursor === undefined) break
      query = `limit=1&path=/root/d&cursor=${page.next_cursor}`
    }
    expect(pages).toEqual(whole.changes.map(({ path }) => path))
    await shell('rm ~/d/c')
    const now = await json<DiffResult>(await platform.call('GET', at('/checkpoints/to/diff/current')), 200)
    expect(now).toMatchObject({ to: 'current' })
    expect(now.changes).toContainEqual(expect.objectContaining({ path: '/root/d/c', change: 'removed' }))
    expect(await code(await platform.call('GET', at('/checkpoints/to/diff/never')), 404)).toBe('checkpoint_not_found')
  })

  it('goes on with the capsule as it was at the first page, for a while', async () => {
    await save({ name: 'from' })
    await shell('mkdir ~/d; for name in a b c; do echo 1 > ~/d/$name; done')
    const page = async (query: string) =>
      await platform.call('GET', at(`/checkpoints/from/diff/current?limit=2&path=/root/d${query}`))
    const first = await json<DiffResult>(await page(''), 200)
    await shell('rm -r ~/d')
    const second = await json<DiffResult>(await page(`&cursor=${first.next_cursor}`), 200)
    const paths = [...first.changes, ...second.changes].map(({ path }) => path)
    expect(paths).toEqual(['/root/d', '/root/d/a', '/root/d/b', '/root/d/c'])
    expect(second.next_cursor).toBeUndefined()
    platform.host.comparisons.clear()
    expect(await code(await page(`&cursor=${first.next_cursor}`), 400)).toBe('invalid_request')
  })
})

describe('a file at a point in time', () => {
  it('is read as it was, and as it is', async () => {
    await shell('echo old > ~/file')
    const { id: from } = await save({ name: 'from' })
    await shell('echo new > ~/file; head -c 1048577 /dev/zero > ~/large')
    const read = (point: string, path: string) => platform.call('GET', at(`/checkpoints/${point}/file?path=${path}`))
    const answer = await read(from, '/root/file')
    expect(answer.headers.get('content-type')).toBe('application/octet-stream')
    expect(await answer.text()).toBe('old\n')
    expect(await (await read('current', '/root/file')).text()).toBe('new\n')
    expect(await code(await read('current', '/root/large'), 413)).toBe('too_large')
    expect(await code(await read('from', '/root/large'), 404)).toBe('file_not_found')
    expect(await code(await read('from', '/root'), 400)).toBe('is_a_directory')
    expect(await code(await read('never', '/root/file'), 404)).toBe('checkpoint_not_found')
    expect(await code(await read('from', ''), 400)).toBe('invalid_request')
  })

  it('is told when to come again while the host reads too many, as a comparison is', async () => {
    await save({ name: 'from' })
    const busy = new AppError('limit_exceeded', 'Too many are read.', { details: { retryAfterSec: 2 } })
    for (const [operation, path] of [
      ['diff', '/checkpoints/from/diff/current'],
      ['read_file_at', '/checkpoints/from/file?path=/root/file'],
    ] as const) {
      platform.host.failNext(operation, busy)
      const refused = await platform.call('GET', at(path))
      expect(refused.headers.get('retry-after')).toBe('2')
      expect(await code(refused, 429)).toBe('limit_exceeded')
    }
  })
})

describe('what was at a checkpoint', () => {
  const forkAt = (checkpoint: string, query = '') =>
    platform.call('POST', at(`/fork${query}`), { checkpoint, name: 'copy' })
  const snapshotAt = (checkpoint: string, query = '') =>
    platform.call('POST', `/v1/snapshots${query}`, { capsule_id: id, name: 'old', checkpoint })

  it('is forked, and made a template of, while the capsule goes on as it is', async () => {
    await shell('echo then > ~/file')
    const point = await save({ name: 'before' })
    await shell('echo now > ~/file')
    const forked = await json<ForkResult>(await forkAt('before'), 201)
    await json<Template>(await snapshotAt(point.id), 201)
    const started = await platform.create({ template: 'old' })
    const copies = [...forked.capsules, started]
    expect(await shell('cat ~/file')).toBe('now\n')
    const source = id
    for (const copy of copies) {
      id = copy.id
      expect(await shell('cat ~/file')).toBe('then\n')
      await platform.call('DELETE', at(''))
    }
    id = source
    await platform.call('DELETE', '/v1/snapshots/old')
  })

  it('is refused where there is no such checkpoint, and nothing is made', async () => {
    expect(await code(await forkAt('nowhere'), 404)).toBe('checkpoint_not_found')
    expect(await code(await snapshotAt('nowhere'), 404)).toBe('checkpoint_not_found')
    expect(await code(await forkAt('no/where'), 400)).toBe('invalid_request')
    const all = await json<Capsule[]>(await platform.call('GET', '/v1/capsules?status=all'), 200)
    expect(all.map(({ parent_id }) => parent_id)).not.toContain(id)
    const templates = await json<Template[]>(await platform.call('GET', '/v1/snapshots?type=snapshot'), 200)
    expect(templates.map(({ name }) => name)).not.toContain('old')
  })

  it.each(['fork', 'snapshot'] as const)('cannot be deleted before its %s is made', async (what) => {
    await save({ name: 'before' })
    const held = platform.host.holdNext(what)
    const ask = what === 'fork' ? forkAt : snapshotAt
    expect((await ask('before', '?wait_sec=0')).status).toBe(202)
    await held.reached
    expect(await code(await platform.call('DELETE', at('/checkpoints/before')), 409)).toBe('in_use')
    held.release()
    await expect.poll(async () => (await platform.call('DELETE', at('/checkpoints/before'))).status).toBe(204)
    if (what === 'snapshot') await platform.call('DELETE', '/v1/snapshots/old')
  })

  it('is another request than that of now', async () => {
    await save({ name: 'before' })
    const key = { 'idempotency-key': `point-${id}` }
    await json(await platform.call('POST', at('/fork'), { checkpoint: 'before' }, key), 201)
    expect(await code(await platform.call('POST', at('/fork'), {}, key), 409)).toBe('idempotency_mismatch')
  })
})

describe('snapshots', () => {
  const make = (body: object) => platform.call('POST', '/v1/snapshots', { capsule_id: id, ...body })
  const named = async (name: string) => {
    const all = await json<Template[]>(await platform.call('GET', '/v1/snapshots?type=snapshot'), 200)
    return all.find((template) => template.name === name)
  }

  it('are templates that capsules start from as the source was', async () => {
    await shell('echo kept > ~/file')
    const template = await json<Template>(await make({ name: 'mine' }), 201)
    expect(template).toMatchObject({ name: 'mine', type: 'snapshot', platform: false, vcpus: 1, memory_mb: 512 })
    expect((await platform.get(id)).state).toBe('running')
    await platform.call('DELETE', at(''))
    const copy = await platform.create({ template: 'mine' })
    expect(copy).toMatchObject({ template: 'mine', snapshot_id: template.snapshot_id, path: 'restore' })
    id = copy.id
    expect(await shell('cat ~/file')).toBe('kept\n')
    const other = await platform.call('POST', '/v1/capsules', { template: 'mine', vcpus: 2 })
    const { error } = await json<ErrorBody>(other, 400)
    expect(error.message).toContain('vcpus')
    expect((await platform.call('DELETE', '/v1/snapshots/mine')).status).toBe(204)
    expect(await named('mine')).toBeUndefined()
    expect(platform.host.snapshots.size).toBe(0)
    expect(await code(await platform.call('POST', '/v1/capsules', { template: 'mine' }), 404)).toBe(
      'template_not_found',
    )
  })

  it('are listed beside the built-in templates', async () => {
    const { name } = await json<Template>(await make({}), 201)
    expect(name).toMatch(/^template-[0-9a-f]{8}$/)
    const all = await json<Template[]>(await platform.call('GET', '/v1/snapshots'), 200)
    expect(all.filter((template) => template.platform).map((template) => template.name)).toEqual(['minimal', 'python'])
    expect(all.map((template) => template.name)).toContain(name)
    const base = await json<Template[]>(await platform.call('GET', '/v1/snapshots?type=base'), 200)
    expect(base.every((template) => template.platform)).toBe(true)
    await platform.call('DELETE', `/v1/snapshots/${name}`)
  })

  it('need a name that nobody has, and a capsule that is awake or asleep', async () => {
    expect(await code(await make({ name: 'base' }), 409)).toBe('name_reserved')
    await json(await make({ name: 'one' }), 201)
    expect(await code(await make({ name: 'one' }), 409)).toBe('template_name_taken')
    expect(await code(await platform.call('DELETE', '/v1/snapshots/minimal'), 403)).toBe('forbidden')
    expect(await code(await platform.call('DELETE', '/v1/snapshots/nothing'), 404)).toBe('template_not_found')
    await platform.call('DELETE', '/v1/snapshots/one')
    await json(await platform.call('POST', at('/pause')), 200)
    await json(await make({ name: 'one', capsule_id: undefined, sandbox_id: id }), 201)
    expect((await platform.get(id)).state).toBe('paused')
    await platform.call('DELETE', '/v1/snapshots/one')
    await platform.call('DELETE', at(''))
    expect(await code(await make({ name: 'one' }), 409)).toBe('invalid_state')
  })

  it('are not there when they could not be made, and their name is free', async () => {
    for (const point of ['before', 'after'] as const) {
      platform.host.failNext('snapshot', undefined, point)
      expect(await code(await make({ name: 'again' }), 500)).toBe('engine_failure')
    }
    await expect.poll(() => platform.host.snapshots.size).toBe(0)
    const key = { 'idempotency-key': `snapshot-${id}` }
    const body = { capsule_id: id, name: 'again' }
    const first = await json(await platform.call('POST', '/v1/snapshots', body, key), 201)
    expect(await json(await platform.call('POST', '/v1/snapshots', body, key), 201)).toEqual(first)
    await platform.call('DELETE', '/v1/snapshots/again')
  })

  it('are not deleted while a capsule is created from them', async () => {
    await json(await make({ name: 'busy' }), 201)
    const release = platform.host.holdCreates()
    const slow = await platform.call('POST', '/v1/capsules?wait_sec=0', { template: 'busy' })
    const { id: started } = await json<Capsule>(slow, 201)
    expect(await code(await platform.call('DELETE', '/v1/snapshots/busy'), 409)).toBe('in_use')
    release()
    await platform.until(started, 'running')
    expect((await platform.call('DELETE', '/v1/snapshots/busy')).status).toBe(204)
    expect((await platform.get(started)).state).toBe('running')
    await platform.call('DELETE', `/v1/capsules/${started}`)
  })

  it('go when their host is back, if it was away when they were deleted', async () => {
    await json(await make({ name: 'late' }), 201)
    await platform.host.stop()
    expect((await platform.call('DELETE', '/v1/snapshots/late')).status).toBe(204)
    expect(await named('late')).toBeUndefined()
    await platform.host.start()
    await expect.poll(() => platform.host.snapshots.size, { timeout: 20_000 }).toBe(0)
    await platform.until(id, 'running')
  })
})
