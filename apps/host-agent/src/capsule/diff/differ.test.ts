import { AppError, checkpointIds } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nothing, TestMachine } from '../../testing/test-machine.js'
import type { CapsuleManager } from '../manager.js'
import { CheckpointDiffer, type DiffPage, type DiffQuery } from './differ.js'
import type { DiffInput, FileChange } from './index.js'
import { DiffTurns } from './turns.js'

let test: TestMachine
let manager: CapsuleManager
let differ: CheckpointDiffer
let capsuleId: string
let fromCheckpointId: string
const NEVER = new AbortController().signal
/** Disks that were compared. */
const compared: string[] = []

async function* threeChanges({ toDisk }: DiffInput): AsyncGenerator<FileChange> {
  compared.push(toDisk)
  for (const path of ['/a', '/b', '/c']) {
    yield { change: 'added', path: Buffer.from(path), type: 'file', size: 1, what: [] }
  }
}

beforeEach(async () => {
  test = await TestMachine.create()
  const started = await test.startWithCapsule()
  manager = started.manager
  capsuleId = started.capsuleId
  fromCheckpointId = checkpointIds.create()
  await manager.points.create(capsuleId, fromCheckpointId)
  differ = new CheckpointDiffer(manager.context, threeChanges)
  compared.length = 0
})
afterEach(async () => {
  vi.useRealTimers()
  await test[Symbol.asyncDispose]()
})

async function read(change: Partial<DiffQuery>): Promise<DiffPage & { readonly paths: string }> {
  const page: DiffPage = { captureId: undefined }
  const all = { toCheckpointId: undefined, captureId: undefined, path: undefined, after: undefined, limit: undefined }
  const query = { ...all, capsuleId, fromCheckpointId, signal: new AbortController().signal, ...change }
  const paths: string[] = []
  for await (const { path } of differ.diff(query, page)) paths.push(path.toString())
  return { ...page, paths: paths.join(' ') }
}

const scratch = async (): Promise<string[]> => (await test.leftovers()).files.filter((name) => name.includes('-diff-'))

describe('a comparison with the capsule as it is', () => {
  it('goes on, page after page, with the capsule as it was at the first', async () => {
    const first = await read({ limit: 1 })
    expect(first).toMatchObject({ paths: '/a', captureId: expect.stringMatching(/^[0-9a-f]{16}$/) })
    const { captureId } = first
    expect(await read({ captureId, after: Buffer.from('/a'), limit: 1 })).toEqual({ paths: '/b', captureId })
    const last = { captureId, after: Buffer.from('/b'), limit: 2 }
    expect((await read(last)).paths).toBe('/c')
    expect((await read(last)).paths).toBe('/c')
    expect(new Set(compared).size).toBe(1)
    expect(await scratch()).toHaveLength(1)
  })

  it('keeps nothing when the first page has all, or two checkpoints are compared', async () => {
    expect(await read({ limit: 4 })).toEqual({ paths: '/a /b /c', captureId: undefined })
    expect(await read({})).toEqual({ paths: '/a /b /c', captureId: undefined })
    expect(await read({ toCheckpointId: fromCheckpointId, limit: 1 })).toEqual({ paths: '/a', captureId: undefined })
    expect(await scratch()).toEqual([])
  })

  it('is given up when it was not asked for in time', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const { captureId } = await read({ limit: 1 })
    vi.advanceTimersByTime(119_000)
    await read({ captureId, limit: 1 })
    vi.advanceTimersByTime(119_000)
    await read({ captureId, limit: 1 })
    vi.advanceTimersByTime(121_000)
    vi.useRealTimers()
    await expect(read({ captureId, limit: 1 })).rejects.toMatchObject({ code: 'invalid_request' })
    await test.until(async () => ((await scratch()).length === 0 ? true : undefined))
  })

  it('makes room for newer ones, and goes with its capsule', async () => {
    const kept: (string | undefined)[] = []
    for (let count = 0; count < 3; count++) kept.push((await read({ limit: 1 })).captureId)
    await expect(read({ captureId: kept[0], limit: 1 })).rejects.toThrow(AppError)
    expect(await read({ captureId: kept[1], limit: 1 })).toMatchObject({ paths: '/a' })
    await test.until(async () => ((await scratch()).length === 2 ? true : undefined))
    await manager.destroyAll()
    await test.until(async () => ((await scratch()).length === 0 ? true : undefined))
    expect(await test.leftovers()).toEqual(nothing)
  })

  it('leaves nothing on the pool when the host agent ends, be it kept, being read or being prepared', async () => {
    const kept = await read({ limit: 1 })
    const query = { capsuleId, fromCheckpointId, toCheckpointId: undefined, captureId: undefined }
    const half = differ.diff({ ...query, path: undefined, after: undefined, limit: undefined, signal: NEVER })
    expect((await half.next()).value?.path.toString()).toBe('/a')
    const preparing = read({}).catch((error: unknown) => error)
    await differ.close()
    expect(await scratch()).toEqual([])
    const unavailable = { code: 'host_unavailable' }
    await expect(half.next()).rejects.toMatchObject(unavailable)
    expect(await preparing).toMatchObject(unavailable)
    await expect(read({ captureId: kept.captureId, limit: 1 })).rejects.toMatchObject(unavailable)
    expect(await scratch()).toEqual([])
    await manager.destroyAll()
    expect(await test.leftovers()).toEqual(nothing)
  })

  it('belongs to its capsule and checkpoint', async () => {
    const { captureId } = await read({ limit: 1 })
    const other = checkpointIds.create()
    await manager.points.create(capsuleId, other)
    const query = { captureId, fromCheckpointId: other, limit: 1 }
    await expect(read(query)).rejects.toMatchObject({ code: 'invalid_request' })
  })
})

describe('readers of one capsule', () => {
  const file = () => ({ capsuleId, checkpointId: undefined, path: '/a', maxBytes: 1, signal: NEVER })

  it('come one after the other, whatever they read', async () => {
    const query = { capsuleId, fromCheckpointId, toCheckpointId: undefined, captureId: undefined }
    const first = differ.diff({ ...query, path: undefined, after: undefined, limit: undefined, signal: NEVER })
    await first.next()
    const [second, third] = [read({}), differ.readFile(file()).catch((error: unknown) => error)]
    // One that is prepared has its capture on the pool.
    expect(compared).toHaveLength(1)
    expect(await scratch()).toHaveLength(1)
    for await (const _ of first) expect(compared).toHaveLength(1)
    expect((await second).paths).toBe('/a /b /c')
    expect(await third).toMatchObject({ code: 'snapshot_damaged' })
  })

  it('are refused beyond those that may wait, and nothing is prepared for them', async () => {
    differ = new CheckpointDiffer(manager.context, threeChanges, new DiffTurns({ ofCapsule: 1 }))
    const query = { capsuleId, fromCheckpointId, toCheckpointId: undefined, captureId: undefined }
    const first = differ.diff({ ...query, path: undefined, after: undefined, limit: undefined, signal: NEVER })
    await first.next()
    const refusal = { code: 'limit_exceeded', details: { retryAfterSec: 2 } }
    await expect(read({})).rejects.toMatchObject(refusal)
    await expect(differ.readFile(file())).rejects.toMatchObject(refusal)
    expect(await scratch()).toHaveLength(1)
    await first.return(undefined)
    expect((await read({})).paths).toBe('/a /b /c')
  })
})

describe('a file at a point', () => {
  it('that cannot be read leaves nothing on the pool, and neither does the end of the host agent', async () => {
    const query = { capsuleId, checkpointId: undefined, path: '/a', maxBytes: 1, signal: NEVER }
    // The disks of this machine hold no file system.
    await expect(differ.readFile(query)).rejects.toMatchObject({ code: 'snapshot_damaged' })
    expect(await scratch()).toEqual([])
    const reading = differ.readFile(query).catch((error: unknown) => error)
    await differ.close()
    expect(await reading).toMatchObject({ code: 'host_unavailable' })
    expect(await scratch()).toEqual([])
    await expect(differ.readFile(query)).rejects.toMatchObject({ code: 'host_unavailable' })
  })
})
