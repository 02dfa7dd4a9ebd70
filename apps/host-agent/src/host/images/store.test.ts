import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { removeImage } from './base-image.js'
import { blankDisk } from './blank-disk.js'
import { createLayer } from './ext4.js'
import { LayerStore, sha256File } from './store.js'

const entrySchema = z.object({ digest: z.string() })
const digestsOf = (entry: z.infer<typeof entrySchema>) => [entry.digest]

describe('LayerStore', () => {
  let pool: string
  let store: LayerStore

  beforeEach(async () => {
    pool = await mkdtemp(join(tmpdir(), 'wrenn-store-'))
    store = new LayerStore(pool)
  })
  afterEach(async () => {
    await rm(pool, { recursive: true, force: true })
  })

  async function adopt(content: string): Promise<string> {
    await using lease = await store.lease({})
    await writeFile(join(lease.scratchDir, 'file'), content)
    return (await store.adopt(join(lease.scratchDir, 'file'))).digest
  }

  it('names a file by its content, makes it read-only, and notices damage', async () => {
    const digest = await adopt('content')
    expect((await stat(store.layerPath(digest))).mode & 0o777).toBe(0o444)
    expect(await store.isIntact(digest)).toBe(true)
    await truncate(store.layerPath(digest), 3)
    expect(await store.isIntact(digest)).toBe(false)
  })

  it('forgets an index entry whose file is gone, is torn, or has another shape', async () => {
    const digest = await adopt('content')
    await store.writeIndex('thing', { digest })
    expect(await store.readIndex('thing', entrySchema, digestsOf)).toEqual({ digest })
    await store.removeLayer(digest)
    expect(await store.readIndex('thing', entrySchema, digestsOf)).toBeUndefined()
    await store.writeIndex('thing', { other: 1 })
    expect(await store.readIndex('thing', entrySchema, digestsOf)).toBeUndefined()
    await writeFile(join(pool, 'layers/index/thing.json'), '{"dig')
    expect(await store.readIndex('thing', entrySchema, digestsOf)).toBeUndefined()
  })

  it('keeps the layers that its entries name, not what an image has in its config', async () => {
    const [layer, other] = [await adopt('layer'), await adopt('other')]
    await store.writeIndex('image', { digest: layer, config: { cmd: [other], env: [other] } })
    expect(await store.referencedDigests()).toEqual(new Set([layer]))
  })

  it('removes what an interrupted build left, and its own scratch folder', async () => {
    const left = join(pool, 'layers/scratch/left')
    await mkdir(left, { recursive: true })
    {
      await using lease = await store.lease({})
      expect(await readdir(join(pool, 'layers/scratch'))).toHaveLength(1)
      expect(lease.scratchDir).not.toBe(left)
    }
    expect(await readdir(join(pool, 'layers/scratch'))).toEqual([])
  })

  it('lets one builder in at a time, in order of release', async () => {
    const events: string[] = []
    const first = await store.lease({})
    const second = new LayerStore(pool).lease({}).then((lease) => {
      events.push('second in')
      return lease
    })
    events.push('first out')
    await first[Symbol.asyncDispose]()
    await (await second)[Symbol.asyncDispose]()
    expect(events).toEqual(['first out', 'second in'])
  })

  it('stops waiting for the lock when aborted', async () => {
    await using _first = await store.lease({})
    const controller = new AbortController()
    const reason = new Error('enough')
    const waiting = store.lease({ signal: controller.signal })
    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
  })

  it('refuses to start without room', async () => {
    await adopt('content')
    await expect(store.requireSpace(2 ** 52, 'a large image')).rejects.toMatchObject({ code: 'disk_full' })
  })

  it('removes an image only while nobody uses its layer', async () => {
    const digest = await adopt('image')
    const entry = { name: 'tiny', aliases: ['small'], inputs: '', digest, createdAtMs: 1, packages: {} }
    await store.writeIndex('image-tiny', entry)
    const inUse = { poolDir: pool, inUse: (candidate: string) => candidate === digest }
    await expect(removeImage('small', inUse)).rejects.toMatchObject({ code: 'invalid_state' })
    expect(await removeImage('small', { poolDir: pool, inUse: () => false })).toBe(true)
    expect(await store.digests()).toEqual([])
    expect(await removeImage('small', { poolDir: pool, inUse: () => false })).toBe(false)
  })

  it('gives one blank disk per size, sparse and read-only', async () => {
    const [path, same] = await Promise.all([blankDisk(pool, 512), blankDisk(pool, 512)])
    expect(same).toBe(path)
    const { size, blocks, mode } = await stat(path)
    expect(size).toBe(512 * 1_048_576)
    expect(blocks * 512).toBeLessThan(20 * 1_048_576)
    expect(mode & 0o777).toBe(0o444)
    await expect(blankDisk(pool, 1.5)).rejects.toMatchObject({ code: 'invalid_request' })
  })

  it('packs one folder into the same bytes twice', async () => {
    const folder = join(pool, 'folder')
    await mkdir(join(folder, 'sub'), { recursive: true })
    await writeFile(join(folder, 'sub/file'), 'x'.repeat(10_000))
    await symlink('file', join(folder, 'sub/link'))
    const digests: string[] = []
    for (const name of ['a', 'b']) {
      await createLayer(folder, join(pool, name), { role: 'base', epochSeconds: 1_700_000_000 })
      digests.push(await sha256File(join(pool, name)))
      await readFile(join(folder, 'sub/file')) // moves the access time
    }
    expect(digests[0]).toBe(digests[1])
  })
})
