import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { listDamage, type ObjectStore, Pace, StateStore } from '@wrenn/object-store'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { ServerUnderTest } from './servers.js'

const KIB = 1024
const MIB = 1024 * KIB
const maxBytes = 4 * MIB
/** Small, so that small files have many. */
const chunkBytes = 64 * KIB
const signal = new AbortController().signal
const team = { id: 'team-1', key: randomBytes(32) }

/** What every server must be good for. */
export function describeStateStore(under: ServerUnderTest): void {
  let folder: string
  let copies = 0

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wrenn-states-'))
  })
  afterEach(() => rm(folder, { recursive: true, force: true }))

  const target = async (): Promise<string> => {
    const path = join(folder, `copy-${++copies}`)
    await mkdir(path)
    return path
  }

  /** A memory of 2 MiB, most of it holes, with a piece that is there twice; and a small file that fills no chunk. */
  const makeFiles = async () => {
    const memory = join(folder, 'mem.raw')
    const piece = randomBytes(chunkBytes)
    await using file = await open(memory, 'w')
    await file.truncate(2 * MIB + 1_000)
    await file.write(piece, 0, piece.length, 0)
    await file.write(piece, 0, piece.length, MIB)
    await file.write(
      Buffer.alloc(2 * chunkBytes, 'text that is small when it is packed. '),
      0,
      2 * chunkBytes,
      MIB + chunkBytes,
    )
    await file.write(randomBytes(500), 0, 500, 2 * MIB + 400)
    const state = join(folder, 'state.raw')
    await writeFile(state, randomBytes(70 * KIB))
    return [
      { name: 'mem', path: memory },
      { name: 'state', path: state },
    ]
  }

  const statesOf = async (): Promise<[ObjectStore, StateStore]> => {
    const store = await under.open()
    return [store, new StateStore(store, team, { chunkBytes })]
  }

  it('come back byte by byte, with their holes, and do so again after a save of the same', async () => {
    const [store, states] = await statesOf()
    const files = await makeFiles()
    const seen: number[] = []
    const saved = await states.save('st-1', files, { signal, onProgress: ({ doneBytes }) => seen.push(doneBytes) })
    expect(saved.chunks).toBe(6)
    expect(saved.bytes).toBe(4 * chunkBytes + 1_000 + 70 * KIB)
    expect(saved.sentBytes).toBeLessThan(saved.bytes - 2 * chunkBytes)
    expect(seen.at(-1)).toBe(2 * MIB + 1_000 + 70 * KIB)
    expect(await states.has('st-1')).toBe(true)

    const again = await states.save('st-2', files, { signal })
    expect(again).toEqual({ ...saved, sentBytes: 0 })

    const to = await target()
    const loaded = await new StateStore(store, team).load('st-2', to, { signal })
    expect(loaded).toEqual({ bytes: saved.bytes, fetchedBytes: saved.sentBytes })
    for (const { name, path } of files) expect((await readFile(join(to, name))).equals(await readFile(path))).toBe(true)
    expect((await stat(join(to, 'mem'))).blocks * 512).toBeLessThan(MIB)
  })

  it('are read only where there is data, when that is told', async () => {
    const [, states] = await statesOf()
    const files = await makeFiles()
    async function* dataRanges() {
      yield { offset: 10, length: 20 }
    }
    const saved = await states.save('st-1', files, { signal, dataRanges })
    expect(saved).toMatchObject({ bytes: 2 * chunkBytes, chunks: 2 })
  })

  it('go on where a save was broken off, which leaves no state', async () => {
    const [store, states] = await statesOf()
    const files = await makeFiles()
    const breaking = new AbortController()
    const reason = new Error('host is stopping')
    const broken = states.save('st-1', files, {
      signal: breaking.signal,
      onProgress: ({ doneBytes }) => {
        if (doneBytes > 2 * MIB) breaking.abort(reason)
      },
    })
    await expect(broken).rejects.toBe(reason)
    expect(await states.has('st-1')).toBe(false)
    let thereBytes = 0
    for await (const { sizeBytes } of store.list('')) thereBytes += sizeBytes
    expect(thereBytes).toBeGreaterThan(0)
    const saved = await states.save('st-1', files, { signal })
    let allBytes = 0
    for await (const { sizeBytes } of store.list('teams/team-1/chunks/')) allBytes += sizeBytes
    expect(saved.sentBytes).toBe(allBytes - thereBytes)
    await states.load('st-1', await target(), { signal })
  })

  it('say that there is none, and which key they want', async () => {
    const [store, states] = await statesOf()
    await states.save('st-1', await makeFiles(), { signal })
    const to = await target()
    await expect(states.load('st-9', to, { signal })).rejects.toMatchObject({ code: 'stored_state_not_found' })
    const wrong = new StateStore(store, { ...team, key: randomBytes(32) })
    await expect(wrong.load('st-1', to, { signal })).rejects.toMatchObject({ code: 'stored_state_wrong_key' })
    const other = new StateStore(store, { ...team, id: 'team-2' })
    await expect(other.load('st-1', to, { signal })).rejects.toMatchObject({ code: 'stored_state_not_found' })
    expect(await readdir(to)).toEqual([])
  })

  it.each(['chunk', 'manifest'] as const)('tell by name of a %s that is damaged, and leave no file', async (kind) => {
    const [store, states] = await statesOf()
    const files = await makeFiles()
    await states.save('st-1', files, { signal })
    await states.save('st-2', files, { signal })
    const prefix = kind === 'chunk' ? 'teams/team-1/chunks/' : 'teams/team-1/states/'
    const [key = '', otherKey = ''] = await keysOf(store, prefix)
    const [whole, other] = await Promise.all([key, otherKey].map((each) => store.get(each, { maxBytes })))
    if (whole === undefined || other === undefined) throw new Error('both were saved')
    const to = await target()
    for (const [what, spoilt, sentence] of spoiltOnes(whole, other)) {
      await store.put(key, spoilt)
      const failure = await failureOf(states.load('st-1', to, { signal }))
      expect(failure, what).toMatchObject({ code: 'stored_state_damaged' })
      const parts = ['stored state st-1', sentence, ...(kind === 'chunk' ? [key] : [])]
      for (const part of parts) expect(failure?.message, what).toContain(part)
      expect(await readdir(to), what).toEqual([])
    }
    await store.remove([key])
    const code = kind === 'chunk' ? 'stored_state_damaged' : 'stored_state_not_found'
    expect(await failureOf(states.load('st-1', to, { signal }))).toMatchObject({ code })
    await store.put(key, whole)
    await states.load('st-1', to, { signal })
  })

  it.each(['chunk', 'manifest'] as const)(
    'write a %s anew that was found damaged, and believe none that is',
    async (kind) => {
      const [store, states] = await statesOf()
      const files = await makeFiles()
      const saved = await states.save('st-1', files, { signal })
      await states.save('st-2', files, { signal })
      const [key = ''] = await keysOf(store, kind === 'chunk' ? 'teams/team-1/chunks/' : 'teams/team-1/states/')
      await store.put(key, Buffer.from('rotten'))
      expect((await states.save('st-1', files, { signal })).sentBytes).toBe(0) // nobody has seen it
      if (kind === 'manifest') await store.put(key, Buffer.from('rotten'))
      const to = await target()
      expect(await failureOf(states.load('st-1', to, { signal }))).toMatchObject({ code: 'stored_state_damaged' })
      expect(await listDamage(store, signal)).toEqual(new Map([['team-1', 1]]))
      expect(await states.has('st-1')).toBe(false)
      expect(await states.has('st-2')).toBe(kind === 'manifest')
      const again = await states.save('st-1', files, { signal })
      expect(again.sentBytes > 0 && again.sentBytes < saved.sentBytes).toBe(kind === 'chunk')
      expect(await states.has('st-1')).toBe(true)
      expect((await states.load('st-2', to, { signal })).bytes).toBe(saved.bytes)
      expect(await listDamage(store, signal)).toEqual(new Map())
    },
  )

  it('forget that something was damaged when nothing needs it', async () => {
    const [store, states] = await statesOf()
    await states.save('st-1', await makeFiles(), { signal })
    const [key = ''] = await keysOf(store, 'teams/team-1/chunks/')
    await store.remove([key])
    expect(await failureOf(states.load('st-1', await target(), { signal }))).toMatchObject({
      code: 'stored_state_damaged',
    })
    expect(await listDamage(store, signal)).toEqual(new Map([['team-1', 1]]))
    await states.remove('st-1')
    await states.collect({ signal })
    expect(await listDamage(store, signal)).toEqual(new Map())
  })

  it('share one pace, whichever way they go', async () => {
    const [store] = await statesOf()
    let takenBytes = 0
    class CountedPace extends Pace {
      override async take(bytes: number): Promise<void> {
        takenBytes += bytes
      }
    }
    const pace = new CountedPace(undefined)
    const [one, two] = [team, { ...team, id: 'team-2' }].map((of) => new StateStore(store, of, { chunkBytes, pace }))
    const files = await makeFiles()
    const saved = await Promise.all([one?.save('st-1', files, { signal }), two?.save('st-1', files, { signal })])
    const sentBytes = saved.reduce((sum, each) => sum + (each?.sentBytes ?? 0), 0)
    expect([sentBytes > 0, takenBytes]).toEqual([true, sentBytes])
    const loaded = await one?.load('st-1', await target(), { signal })
    expect(takenBytes - sentBytes).toBe(loaded?.fetchedBytes)
  })

  it('tell of a chunk that is longer than any, without reading all of it', async () => {
    const [store, states] = await statesOf()
    await states.save('st-1', await makeFiles(), { signal })
    const [key = ''] = await keysOf(store, 'teams/team-1/chunks/')
    await store.put(key, Buffer.alloc(2 * chunkBytes))
    await expect(states.load('st-1', await target(), { signal })).rejects.toThrow(`(${key}) is larger than it can be`)
  })

  it('keep what a state needs when the rest is removed, and all of it when one cannot be read', async () => {
    const [store, states] = await statesOf()
    const files = await makeFiles()
    await states.save('st-1', files, { signal })
    await truncate(join(folder, 'mem.raw'), MIB)
    const second = await states.save('st-2', files, { signal })
    await states.remove('st-1')
    await states.remove('st-1')
    const collected = await states.collect({ signal })
    expect(collected.removed).toBe(3)
    expect(await states.collect({ signal, known: ['st-2'] })).toEqual({ removed: 0, bytes: 0 })
    expect((await states.load('st-2', await target(), { signal })).bytes).toBe(second.bytes)
    await expect(states.collect({ signal, known: ['st-1'] })).rejects.toMatchObject({ code: 'stored_state_not_found' })
    await states.save('st-3', await makeFiles(), { signal })
    await states.remove('st-3')
    await store.put('teams/team-1/states/st-2', Buffer.from('not a manifest'))
    await expect(states.collect({ signal })).rejects.toMatchObject({ code: 'stored_state_damaged' })
  })
}

/** What is there instead of an object, and what is said of it. */
function spoiltOnes(whole: Buffer, other: Buffer): readonly [what: string, spoilt: Buffer, sentence: string][] {
  const changedAt = (at: number): Buffer => {
    const copy = Buffer.from(whole)
    copy.writeUInt8(copy.readUInt8(at) ^ 1, at)
    return copy
  }
  const isOther = 'was truncated or changed'
  return [
    ['without its last byte', whole.subarray(0, -1), isOther],
    ['nothing but a beginning', whole.subarray(0, 12), isOther],
    ['with another last bit', changedAt(whole.length - 1), isOther],
    ['with another bit in the middle', changedAt(whole.length >> 1), isOther],
    ['of another version', changedAt(0), 'has version 0, and 1 is known'],
    ['the object of another name', other, isOther],
  ]
}

async function failureOf(promise: Promise<unknown>): Promise<Error | undefined> {
  return await promise.then(
    () => undefined,
    (error: Error) => error,
  )
}

async function keysOf(store: ObjectStore, prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of store.list(prefix)) keys.push(key)
  return keys
}
