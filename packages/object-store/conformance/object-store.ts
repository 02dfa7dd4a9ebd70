import { randomBytes } from 'node:crypto'
import type { ObjectStoreConfig } from '@wrenn/object-store'
import { openObjectStore } from '@wrenn/object-store'
import { afterEach, expect, it, vi } from 'vitest'
import type { ServerUnderTest } from './servers.js'

const HOUR_MS = 3_600_000
const PAGE = 20
/** More than fits into two requests. */
const MANY = 45
const maxBytes = 2 ** 20

/** What every server must be good for. */
export function describeObjectStore(under: ServerUnderTest): void {
  afterEach(() => vi.useRealTimers())

  it('is opened with what its server can do, and leaves nothing there', async () => {
    const { conditionalWrites } = under.known
    const store = await under.open()
    expect(store.abilities).toEqual({ ranges: true, conditionalWrites })
    expect(await keysOf(store.list(''))).toEqual([])
  })

  it('writes, replaces, reads and removes whole objects', async () => {
    const store = await under.open()
    const [first, second] = [randomBytes(300_000), randomBytes(200_000)]
    expect(await store.get('a/b', { maxBytes })).toBeUndefined()
    expect(await store.has('a/b')).toBe(false)
    await store.put('a/b', first)
    await store.put('a/empty', Buffer.alloc(0))
    expect(await store.has('a/b')).toBe(true)
    expect((await store.get('a/b', { maxBytes }))?.equals(first)).toBe(true)
    await store.put('a/b', second)
    expect((await store.get('a/b', { maxBytes }))?.equals(second)).toBe(true)
    expect((await store.get('a/empty', { maxBytes }))?.length).toBe(0)
    await expect(store.get('a/b', { maxBytes: 100 })).rejects.toMatchObject({ code: 'stored_state_damaged' })
    await store.remove(['a/b', 'a/never-there'])
    expect(await store.get('a/b', { maxBytes })).toBeUndefined()
    expect(await keysOf(store.list('a/'))).toEqual(['a/empty'])
  })

  it('lists and removes more than fit into one request', async () => {
    const store = await under.open({ keysAtOnce: PAGE })
    const keys = Array.from({ length: MANY }, (_, at) => `many/${String(at).padStart(4, '0')}`)
    await Promise.all(keys.map((key) => store.put(key, Buffer.from(key))))
    await store.put('other', Buffer.from('stays'))
    expect(await keysOf(store.list('many/'))).toEqual(keys)
    await store.remove(keys)
    expect(await keysOf(store.list(''))).toEqual(['other'])
  })

  it.each<[string, (config: ObjectStoreConfig) => ObjectStoreConfig, string]>([
    ['a bucket that is not there', (config) => ({ ...config, bucket: 'never-made' }), 'no bucket "never-made"'],
    ['an unknown key', (config) => ({ ...config, accessKeyId: 'no:body' }), 'WRENN_OBJECT_STORE_ACCESS_KEY'],
    ['the secret of another key', (config) => ({ ...config, secretAccessKey: 'another' }), 'SECRET_KEY is not that of'],
    ['a port that nobody listens on', (config) => ({ ...config, endpoint: 'http://127.0.0.1:1' }), 'ECONNREFUSED'],
  ])('says what is wrong with %s', async (_, change, sentence) => {
    const opened = openObjectStore(change(await under.config()), { attempts: 1 })
    await expect(opened).rejects.toThrow(sentence)
  })

  it('names the region where the server wants another one', async () => {
    const opened = openObjectStore({ ...(await under.config()), region: 'mars-1' })
    if (under.known.regions) await expect(opened).rejects.toThrow('set WRENN_OBJECT_STORE_REGION')
    else (await opened).close()
  })

  it.each([-2, 2])('works with a clock that is wrong by %i hours', async (hours) => {
    const config = await under.config()
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + hours * HOUR_MS })
    const store = await openObjectStore(config)
    await store.put('late', Buffer.from('or early'))
    expect((await store.get('late', { maxBytes }))?.toString()).toBe('or early')
    store.close()
  })

  it('ends with the reason of its signal', async () => {
    const store = await under.open()
    const reason = new Error('no longer wanted')
    const ended = AbortSignal.abort(reason)
    await expect(store.put('never', Buffer.alloc(10), ended)).rejects.toBe(reason)
    await expect(store.get('never', { maxBytes, signal: ended })).rejects.toBe(reason)
    expect(await store.has('never')).toBe(false)
  })
}

async function keysOf(listing: AsyncIterable<{ readonly key: string }>): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of listing) keys.push(key)
  return keys
}
