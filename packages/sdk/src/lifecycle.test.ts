import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, type Seen, sendJson } from './fake-server.fixture.js'
import {
  type Capsule,
  CheckpointNotFoundError,
  type FileChange,
  FileNotFoundError,
  InvalidStateError,
  StateNotLoadableError,
  TimeoutError,
  Wrenn,
} from './index.js'

const CHECKPOINT = `cp-${'1'.repeat(25)}`
const AT = '2026-01-02T03:04:05Z'

let server: FakeServer
let wrenn: Wrenn
let found: Capsule

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
  server.handler = (_seen, response) => sendJson(response, capsule('running'))
  found = await wrenn.capsules.get(ID)
  server.seen.length = 0
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const errorBody = (code: string) => ({ error: { code, message: `it is ${code}` } })
const bodyOf = (seen: Seen | undefined): unknown => JSON.parse(seen?.body || 'null')
const keys = (): Set<unknown> => new Set(server.seen.map(({ headers }) => headers['idempotency-key']))

function checkpoint(name: string, more: object = {}): object {
  const facts = { created_at: AT, size_bytes: 7, durable: false, current: true }
  return { id: CHECKPOINT, capsule_id: ID, name, ...facts, ...more }
}

describe('pause and resume', () => {
  it('ask again under the same key until the answer shows the end', async () => {
    const states = ['pausing', 'pausing', 'paused']
    server.handler = (_seen, response) => {
      const state = states.shift() ?? ''
      const more = { pause_reason: 'request', paused_at: AT, durable: false, auto_resume: true }
      sendJson(response, capsule(state, more))
    }
    const info = await found.pause()
    expect(info).toMatchObject({ state: 'paused', pauseReason: 'request', durable: false, autoResume: true })
    expect(info.pausedAt).toEqual(new Date(AT))
    expect(found.info).toBe(info)
    expect(server.seen.map(({ path }) => path)).toEqual(Array(3).fill(`/v1/capsules/${ID}/pause?wait_sec=20`))
    expect(keys().size).toBe(1)
    expect([...keys()][0]).toMatch(/^op-[0-9a-f]{16}$/)
  })

  it('wait for a hibernation until the state is stored, which is after the pause', async () => {
    const states = ['pausing', 'paused', 'hibernated']
    server.handler = (_seen, response) => sendJson(response, capsule(states.shift() ?? '', { durable: true }))
    expect(await found.hibernate()).toMatchObject({ state: 'hibernated', status: 'hibernated' })
    expect(server.seen.map(({ path }) => path)).toEqual(Array(3).fill(`/v1/capsules/${ID}/hibernate?wait_sec=20`))
    expect(keys().size).toBe(1)
  })

  it('use the same key again when the connection was lost under the request, and another for the next call', async () => {
    server.handler = (_seen, response) => {
      if (server.seen.length === 1) response.destroy()
      else sendJson(response, capsule('running'))
    }
    await found.resume()
    expect(server.seen).toHaveLength(2)
    expect(keys().size).toBe(1)
    await found.resume()
    expect(keys().size).toBe(2)
  })

  it('start from the disk when that is wanted, which the error of memory that does not load asks for', async () => {
    server.handler = (seen, response) => {
      if (bodyOf(seen) === null) sendJson(response, errorBody('state_not_loadable'), 409)
      else sendJson(response, capsule('running', { lifecycle_timings: [] }))
    }
    const refused = await found.resume().catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(StateNotLoadableError)
    expect(refused).toMatchObject({ hint: expect.stringContaining('resume') })
    expect(await found.resume({ from: 'disk' })).toMatchObject({ state: 'running' })
    await found.rollback('before', { from: 'disk' })
    expect(server.seen.map(bodyOf)).toEqual([null, { from: 'disk' }, { from: 'disk' }])
  })

  it('give up waiting after timeoutMs and say that the work goes on', async () => {
    server.handler = (_seen, response) => sendJson(response, capsule('pausing'))
    const thrown = await found.pause({ timeoutMs: 1 }).catch((error: unknown) => error)
    expect(thrown).toBeInstanceOf(TimeoutError)
    expect(String(thrown)).toContain('timeoutMs')
    expect(String(thrown)).toContain('goes on')
  })

  it('give the reason of a refusal at once', async () => {
    server.handler = (_seen, response) => sendJson(response, errorBody('invalid_state'), 409)
    await expect(found.pause()).rejects.toBeInstanceOf(InvalidStateError)
    expect(server.seen).toHaveLength(1)
  })
})

describe('update', () => {
  it('sends only what changes; null takes the name away', async () => {
    server.handler = (_seen, response) =>
      sendJson(response, capsule('running', { timeout_sec: 2, pauses_at: AT, awake_because: ['process'] }))
    const info = await found.update({ name: null, idleTimeoutMs: 1500, autoResume: false })
    expect(server.seen[0]).toMatchObject({ method: 'PATCH', path: `/v1/capsules/${ID}` })
    expect(bodyOf(server.seen[0])).toEqual({ name: null, timeout_sec: 2, auto_resume: false })
    expect(info).toMatchObject({ timeoutMs: 2000, pausesAt: new Date(AT), awakeBecause: ['process'] })
  })
})

describe('fork', () => {
  it('gives capsules that can be used, and how long the source stood still', async () => {
    const copies = ['a', 'b'].map((letter) => capsule('running', { id: `cl-${letter.repeat(25)}`, parent_id: ID }))
    server.handler = (_seen, response) =>
      sendJson(response, { capsules: copies, pause_window_ms: 12.5, timings: [{ step: 'save', ms: 9 }] }, 201)
    const forks = await found.fork({ count: 2, envs: { A: 'b' }, idleTimeoutMs: 60_000 })
    expect(forks).toHaveLength(2)
    expect(forks).toMatchObject({ pauseWindowMs: 12.5, timings: [{ step: 'save', ms: 9 }] })
    expect(forks[1]?.info.parentId).toBe(ID)
    expect(bodyOf(server.seen[0])).toEqual({ count: 2, envs: { A: 'b' }, timeout_sec: 60 })
  })

  it('asks again under the same key when the server waited long enough for one answer', async () => {
    server.handler = (_seen, response) => {
      if (server.seen.length === 1) sendJson(response, errorBody('timeout'), 504)
      else if (server.seen.length === 2)
        sendJson(response, { capsules: [capsule('starting')], pause_window_ms: 0, timings: [] }, 202)
      else sendJson(response, { capsules: [capsule('running')], pause_window_ms: 1, timings: [] }, 201)
    }
    const [copy] = await found.fork()
    expect(copy?.info.state).toBe('running')
    expect(server.seen).toHaveLength(3)
    expect(keys().size).toBe(1)
  })
})

describe('a point in time', () => {
  it('is forked, and made a template of, by name, by id or as it was listed', async () => {
    server.handler = (_seen, response) =>
      sendJson(response, { capsules: [capsule('running')], pause_window_ms: 0, timings: [] }, 201)
    await found.fork({ checkpoint: 'before' })
    await found.fork({ checkpoint: { id: CHECKPOINT } })
    server.handler = (_seen, response) => sendJson(response, errorBody('checkpoint_not_found'), 404)
    const refused = await found.snapshot('tools', { checkpoint: CHECKPOINT }).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(CheckpointNotFoundError)
    expect(server.seen.map(bodyOf)).toEqual([
      { checkpoint: 'before' },
      { checkpoint: CHECKPOINT },
      { capsule_id: ID, name: 'tools', checkpoint: CHECKPOINT },
    ])
  })
})

describe('checkpoints', () => {
  it('are made, listed and deleted', async () => {
    server.handler = (_seen, response) => sendJson(response, checkpoint('one', { pause_window_ms: 4 }), 201)
    expect(await found.checkpoint('one')).toMatchObject({ id: CHECKPOINT, name: 'one', sizeBytes: 7, pauseWindowMs: 4 })
    expect(bodyOf(server.seen[0])).toEqual({ name: 'one' })
    server.handler = (_seen, response) => sendJson(response, [checkpoint('one', { parent_id: 'cp-0' })])
    const [only] = await found.checkpoints()
    expect(only).toMatchObject({ parentId: 'cp-0', current: true, createdAt: new Date(AT) })
    server.handler = (_seen, response) => response.writeHead(204).end()
    await found.deleteCheckpoint(CHECKPOINT)
    expect(server.seen.at(-1)).toMatchObject({ method: 'DELETE', path: `/v1/capsules/${ID}/checkpoints/${CHECKPOINT}` })
  })

  it('are gone back to by id, by name or as listed; the answer of the end is waited for', async () => {
    server.handler = (_seen, response) => {
      const isEnd = server.seen.length !== 1
      sendJson(response, capsule('running', { checkpoint_id: CHECKPOINT, ...(isEnd ? { lifecycle_timings: [] } : {}) }))
    }
    expect(await found.rollback('before')).toMatchObject({ checkpointId: CHECKPOINT, lifecycleTimings: [] })
    expect(server.seen).toHaveLength(2)
    expect(keys().size).toBe(1)
    await found.rollback({ id: CHECKPOINT })
    const path = (ref: string): string => `/v1/capsules/${ID}/checkpoints/${ref}/rollback`
    const asked = new Set(server.seen.map((seen) => seen.path.split('?')[0]))
    expect(asked).toEqual(new Set([path('before'), path(CHECKPOINT)]))
  })

  it('that are not there have an error of their own', async () => {
    server.handler = (_seen, response) => sendJson(response, errorBody('checkpoint_not_found'), 404)
    await expect(found.rollback('never')).rejects.toBeInstanceOf(CheckpointNotFoundError)
  })

  it('differ in files that come page after page, names of any bytes included', async () => {
    const change = { change: 'added', path: '/a', type: 'file', size: 3, what: [] }
    const odd = { ...change, path: '/é\ufffdffa' }
    const older = { ...change, path: Buffer.from([0x2f, 0xff]).toString('base64'), path_encoding: 'base64' }
    server.handler = (seen, response) =>
      seen.path.includes('cursor=two')
        ? sendJson(response, { from: 'a', to: 'current', changes: [odd, older] })
        : sendJson(response, { from: 'a', to: 'current', changes: [change], next_cursor: 'two' })
    const changes: FileChange[] = []
    for await (const one of found.diff(CHECKPOINT, 'current', { path: '/etc' })) changes.push(one)
    expect(changes.map(({ path }) => path)).toEqual(['/a', '/é\ufffdffa', '/\ufffd'])
    expect(changes.map(({ pathBytes }) => pathBytes)).toEqual([
      undefined,
      new Uint8Array([0x2f, 0xc3, 0xa9, 0xff, 0x61]),
      new Uint8Array([0x2f, 0xff]),
    ])
    expect(server.seen[0]?.path).toBe(
      `/v1/capsules/${ID}/checkpoints/${CHECKPOINT}/diff/current?path=%2Fetc&limit=1000`,
    )
  })
})

describe('a file at a checkpoint', () => {
  it('comes as its bytes', async () => {
    server.handler = (_seen, response) => response.end(Buffer.from([0, 255]))
    expect(await found.readAt({ id: CHECKPOINT }, '/a b')).toEqual(new Uint8Array([0, 255]))
    expect(server.seen[0]?.path).toBe(`/v1/capsules/${ID}/checkpoints/${CHECKPOINT}/file?path=%2Fa+b`)
    server.handler = (_seen, response) => sendJson(response, errorBody('file_not_found'), 404)
    await expect(found.readAt('current', '/gone')).rejects.toBeInstanceOf(FileNotFoundError)
  })
})

describe('snapshots', () => {
  const template = { name: 'mine', type: 'snapshot', platform: false, aliases: [], vcpus: 1, memory_mb: 512 }

  it('are made of a capsule, listed by type and deleted by name', async () => {
    const wire = { ...template, size_bytes: 5, created_at: AT, snapshot_id: 'sn-1', durable: true }
    server.handler = (_seen, response) => sendJson(response, wire, 201)
    expect(await found.snapshot('mine')).toMatchObject({ name: 'mine', snapshotId: 'sn-1', durable: true })
    expect(bodyOf(server.seen[0])).toEqual({ capsule_id: ID, name: 'mine' })
    server.handler = (_seen, response) => sendJson(response, [wire])
    expect(await wrenn.templates.list({ type: 'snapshot' })).toHaveLength(1)
    expect(server.seen.at(-1)?.path).toBe('/v1/snapshots?type=snapshot')
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.templates.delete('mine')
    expect(server.seen.at(-1)).toMatchObject({ method: 'DELETE', path: '/v1/snapshots/mine' })
  })
})

describe('quota', () => {
  it('tells what is used, and no limit as undefined', async () => {
    const use = { used: 1, limit: 4 }
    const answer = {
      running_capsules: use,
      vcpus: use,
      memory_mb: use,
      pool_bytes: { used: 9, limit: null },
      creating_capsules: { used: 0, limit: 2 },
      api_calls_per_min: { used: 7, limit: 600 },
      plan: 'free',
      capsules: use,
    }
    server.handler = (_seen, response) => sendJson(response, answer)
    const quota = await wrenn.quota()
    expect(quota.runningCapsules).toEqual({ used: 1, limit: 4 })
    expect(quota.poolBytes).toEqual({ used: 9, limit: undefined })
    expect(quota.apiCallsPerMin).toEqual({ used: 7, limit: 600 })
    expect(quota.plan).toBe('free')
  })
})

describe('exec', () => {
  it('says whether an atomic command was undone', async () => {
    const result = { stdout: '', stderr: 'no', exit_code: 1, duration_ms: 5, encoding: 'utf-8', timed_out: false }
    server.handler = (_seen, response) => sendJson(response, { ...result, truncated: false, rolled_back: true })
    expect(await found.exec('./migrate', { atomic: true })).toMatchObject({ exitCode: 1, rolledBack: true })
    expect(bodyOf(server.seen[0])).toMatchObject({ atomic: true })
  })
})
