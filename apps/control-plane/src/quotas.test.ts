import type { Capsule, Checkpoint, ErrorBody, ForkResult, Quota } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let postgres: TestPostgres
let platform: Platform

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
})

async function withQuotas(env: Record<string, string>): Promise<void> {
  platform = await startPlatform({ databaseUrl: postgres.url, env })
}

const create = (body: object = {}) => platform.call('POST', '/v1/capsules', body)
const ask = (id: string, path: string, body?: object) => platform.call('POST', `/v1/capsules/${id}/${path}`, body)
const quota = async () => await json<Quota>(await platform.call('GET', '/v1/quota'), 200)

async function exhausted(response: Response): Promise<ErrorBody['error']> {
  const { error } = await json<ErrorBody>(response, 429)
  expect(error.code).toBe('pool_exhausted')
  return error
}

describe('quotas of a team', () => {
  it('bound how many capsules run: by create, resume and fork, however many ask at once', async () => {
    await withQuotas({ WRENN_QUOTA_RUNNING_CAPSULES: '2' })
    const answers = await Promise.all(Array.from({ length: 5 }, () => create()))
    const made = answers.filter(({ status }) => status === 201)
    expect(made).toHaveLength(2)
    const [one, two] = await Promise.all(made.map((answer) => json<Capsule>(answer, 201)))
    if (one === undefined || two === undefined) throw new Error('two were made')
    await json(await ask(one.id, 'pause'), 200)
    const third = await platform.create({ name: 'third' })
    const { message } = await exhausted(await ask(one.id, 'resume'))
    for (const part of ['WRENN_QUOTA_RUNNING_CAPSULES', '2', 'Pause or destroy', 'third', two.id]) {
      expect(message).toContain(part)
    }
    expect((await platform.get(one.id)).state).toBe('paused')
    await exhausted(await ask(two.id, 'fork', { count: 1 }))
    await json(await ask(two.id, 'pause'), 200)
    await json(await ask(one.id, 'resume'), 200)
    expect(await quota()).toMatchObject({
      running_capsules: { used: 2, limit: 2 },
      vcpus: { used: 2, limit: null },
      capsules: { used: 3 },
    })
    await platform.call('DELETE', `/v1/capsules/${third.id}`)
    expect((await json<ForkResult>(await ask(one.id, 'fork', {}), 201)).capsules).toHaveLength(1)
  })

  it('bound vCPUs and memory of what runs', async () => {
    await withQuotas({ WRENN_QUOTA_VCPUS: '4', WRENN_QUOTA_MEMORY_MB: '2048' })
    const { id } = await platform.create({ vcpus: 3, memory_mb: 1024 })
    expect((await exhausted(await create({ vcpus: 2 }))).message).toContain('WRENN_QUOTA_VCPUS')
    expect((await exhausted(await create({ memory_mb: 1025 }))).message).toContain('WRENN_QUOTA_MEMORY_MB')
    expect(await quota()).toMatchObject({ vcpus: { used: 3, limit: 4 }, memory_mb: { used: 1024, limit: 2048 } })
    await json(await ask(id, 'pause'), 200)
    expect(await quota()).toMatchObject({ vcpus: { used: 0 }, memory_mb: { used: 0 } })
    await json(await create({ vcpus: 4, memory_mb: 2048 }), 201)
  })

  it('bound what files take, and name the largest', async () => {
    await withQuotas({ WRENN_QUOTA_POOL_BYTES: '6000' })
    const { id } = await platform.create({ name: 'big' })
    await expect.poll(async () => (await quota()).pool_bytes.used).toBeGreaterThan(0)
    await json(await ask(id, 'exec', { cmd: 'sh', args: ['-c', 'head -c 9000 /dev/zero > ~/zeros'] }), 200)
    const { size_bytes } = await json<Checkpoint>(await ask(id, 'checkpoints', { name: 'zeros' }), 201)
    expect(size_bytes).toBe(9000)
    await expect.poll(async () => (await quota()).pool_bytes.used).toBeGreaterThan(9000)
    const { message } = await exhausted(await create())
    for (const part of ['WRENN_QUOTA_POOL_BYTES', '"big"', 'checkpoint zeros']) expect(message).toContain(part)
    await exhausted(await ask(id, 'checkpoints'))
    await exhausted(await platform.call('POST', '/v1/snapshots', { capsule_id: id }))
    await platform.call('DELETE', `/v1/capsules/${id}/checkpoints/zeros`)
    await json(await create(), 201)
  })

  it('count what the host says that a team’s files take together, and keep the last word of a silent host', async () => {
    await withQuotas({ WRENN_QUOTA_POOL_BYTES: '20000' })
    const { id } = await platform.create()
    await json(await ask(id, 'checkpoints', {}), 201)
    const teamId = platform.host.capsules.get(id)?.message().teamId ?? ''
    platform.host.poolUsage = new Map([
      [teamId, 5000n],
      ['team-unknown', 1n],
    ])
    await expect.poll(async () => (await quota()).pool_bytes.used).toBe(5000)
    platform.host.poolUsage = 'unmeasured'
    expect((await quota()).pool_bytes).toEqual({ used: 5000, limit: 20_000 })
    await platform.host.stop()
    expect((await quota()).pool_bytes.used).toBe(5000)
  })

  it('are the team’s own where it has some, and 0 is none', async () => {
    await withQuotas({ WRENN_QUOTA_RUNNING_CAPSULES: '1' })
    const db = openDatabase({ url: platform.databaseUrl })
    await platform.create()
    await exhausted(await create())
    await db.updateTable('teams').set({ max_running: 2 }).execute()
    await json(await create(), 201)
    await exhausted(await create())
    await db.updateTable('teams').set({ max_running: 0 }).execute()
    await json(await create(), 201)
    expect((await quota()).running_capsules).toEqual({ used: 3, limit: null })
    await db.destroy()
  })

  it('let a request that was granted be asked again', async () => {
    await withQuotas({ WRENN_QUOTA_RUNNING_CAPSULES: '1' })
    const again = () => platform.call('POST', '/v1/capsules', {}, { 'idempotency-key': 'granted' })
    const { id } = await json<Capsule>(await again(), 201)
    expect((await json<Capsule>(await again(), 201)).id).toBe(id)
  })
})
