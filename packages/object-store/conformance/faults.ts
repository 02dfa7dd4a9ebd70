import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ObjectStore, openObjectStore, StateStore, type StoreOptions } from '@wrenn/object-store'
import { FaultyProxy, type S3Fault, type S3Request } from '@wrenn/testkit'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { ServerUnderTest } from './servers.js'

const chunkBytes = 64 * 1024
const CHUNKS = 12
const signal = new AbortController().signal
const team = { id: 'team-1', key: randomBytes(32) }
/** Where a server stalls on purpose. Elsewhere it has as long as it needs: what is asked again because it was slow would be counted. */
const impatient: StoreOptions = { timeouts: { silenceMs: 2_000 } }

/** What every server must be good for. */
export function describeFaults(under: ServerUnderTest): void {
  let folder: string
  let proxy: FaultyProxy
  let store: ObjectStore | undefined
  let file: { name: string; path: string }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wrenn-states-'))
    proxy = await FaultyProxy.start(under.server.endpoint)
    file = { name: 'mem', path: join(folder, 'mem.raw') }
    await writeFile(file.path, randomBytes(CHUNKS * chunkBytes))
    await mkdir(join(folder, 'copy'))
  })
  afterEach(async () => {
    store?.close()
    await proxy[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const statesOf = async (options: StoreOptions = {}): Promise<StateStore> => {
    const config = await under.config()
    store = await openObjectStore({ ...config, endpoint: proxy.endpoint }, options)
    return new StateStore(store, team, { chunkBytes })
  }
  const isCopied = async (): Promise<boolean> =>
    (await readFile(join(folder, 'copy/mem'))).equals(await readFile(file.path))
  const isChunk = ({ path }: S3Request): boolean => path.includes('/chunks/')

  /** The first `times` requests of a method for chunks. */
  const first = (times: number, method: string, fault: S3Fault) => {
    let left = times
    return (request: S3Request): S3Fault | undefined =>
      isChunk(request) && request.method === method && left-- > 0 ? fault : undefined
  }

  it('write the manifest last, and send no chunk again', async () => {
    const states = await statesOf()
    const before = proxy.requests.length
    await states.save('st-1', [file], { signal })
    const puts = proxy.requests.slice(before).filter(({ method }) => method === 'PUT')
    expect(puts.map(isChunk)).toEqual([...Array(CHUNKS).fill(true), false])
    await states.save('st-2', [file], { signal })
    expect(proxy.count('PUT', '/chunks/')).toBe(CHUNKS)
  })

  it.each<S3Fault>(['unavailable', 'stall', 'reset', 'truncate', 'garble'])(
    'are saved whole when writes meet: %s',
    async (fault) => {
      const states = await statesOf(fault === 'stall' ? impatient : {})
      proxy.choose = first(2, 'PUT', fault)
      const { sentBytes } = await states.save('st-1', [file], { signal })
      expect(proxy.count('PUT', '/chunks/')).toBeGreaterThanOrEqual(CHUNKS + 2)
      expect(sentBytes).toBeGreaterThan(CHUNKS * chunkBytes)
      await states.load('st-1', join(folder, 'copy'), { signal })
      expect(await isCopied()).toBe(true)
    },
  )

  it.each<S3Fault>(['unavailable', 'stall', 'reset', 'truncate', 'shorten', 'flip'])(
    'are loaded whole when reads meet: %s',
    async (fault) => {
      const states = await statesOf(fault === 'stall' ? impatient : {})
      await states.save('st-1', [file], { signal })
      const before = proxy.count('GET', '/chunks/')
      proxy.choose = first(2, 'GET', fault)
      await states.load('st-1', join(folder, 'copy'), { signal })
      expect(proxy.count('GET', '/chunks/') - before).toBeGreaterThanOrEqual(CHUNKS + 2)
      expect(await isCopied()).toBe(true)
    },
  )

  it('are no state when the server refuses all the time, and the failure says where', async () => {
    const states = await statesOf({ attempts: 2 })
    proxy.choose = (request) => (isChunk(request) && request.method === 'PUT' ? 'unavailable' : undefined)
    await expect(states.save('st-1', [file], { signal })).rejects.toMatchObject({
      code: 'object_store_unavailable',
      message: `The object store at ${proxy.endpoint} answered 503 (SlowDown).`,
    })
    expect(await states.has('st-1')).toBe(false)
  })

  it('do not make who has given up wait for a server that stalls', async () => {
    const states = await statesOf()
    await states.save('st-1', [file], { signal })
    const gaveUp = new AbortController()
    const reason = new Error('no longer wanted')
    proxy.choose = (request) => {
      if (!isChunk(request)) return undefined
      setImmediate(() => gaveUp.abort(reason))
      return 'stall'
    }
    await expect(states.load('st-1', join(folder, 'copy'), { signal: gaveUp.signal })).rejects.toBe(reason)
  })
}
