import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run, runForResult } from '../src/host/exec.js'
import { listHostResources } from '../src/host/inventory.js'
import { mountAt } from '../src/host/mounts.js'
import { canClone, closePool, openPool, withOpenPool } from '../src/host/pool/index.js'
import { listLoopDevices } from '../src/host/pool/loop-image.js'

const MIB = 2 ** 20
const options = (dir: string) => ({ dir, sizeBytes: 512 * MIB, logger: silentLogger })

describe.skipIf(process.getuid?.() !== 0)('the pool (needs root)', () => {
  let dir = ''

  beforeEach(async () => {
    dir = await mkdtemp('/tmp/wrenn-pool-')
  })

  afterEach(async () => {
    await closePool(dir)
    await rm(dir, { recursive: true, force: true })
  })

  it('clones files, with owner and mode, and shares their blocks', async () => {
    const pool = await openPool(options(dir))
    const from = join(pool.path, 'layers/a')
    const to = join(pool.path, 'capsules/b')
    await writeFile(from, Buffer.alloc(32 * MIB, 7))
    await run('sync', ['-f', pool.path])
    const before = await pool.usage()
    await pool.clone(from, to, { mode: 0o600, uid: 500_001, gid: 500_001 })
    await run('sync', ['-f', pool.path])
    const { uid, mode, size } = await stat(to)
    expect({ uid, mode: mode & 0o777, size }).toEqual({ uid: 500_001, mode: 0o600, size: 32 * MIB })
    expect((await pool.usage()).usedBytes - before.usedBytes).toBeLessThan(4 * MIB)
    await expect(pool.clone(from, to)).rejects.toThrow(/exist/i)
    expect((await stat(to)).size).toBe(32 * MIB)
    expect((await stat(join(pool.path, 'capsules'))).mode & 0o777).toBe(0o711)
  })

  it('opens after it was killed while it tried whether files can be cloned', async () => {
    await mkdir(join(dir, 'pool'))
    const left = ['.clone-1-2.5', '.clone-1-2.5.copy']
    for (const name of left) await writeFile(join(dir, 'pool', name), 'left')
    const pool = await openPool(options(dir))
    expect((await readdir(pool.path)).filter((name) => name.startsWith('.clone-'))).toEqual([])
  })

  it('opens twice without a second mount, and again after the mount or the process is gone', async ({ skip }) => {
    skip(await canClone(dir), '/tmp can reflink, so no image is made')
    const pool = await openPool(options(dir))
    await writeFile(join(pool.path, 'layers/kept'), 'kept')
    await openPool(options(dir))
    const ours = await listHostResources({ prefix: 'wnone', dir })
    expect(ours.map(({ kind }) => kind).sort()).toEqual(['loop', 'mount'])
    const devices = async () => (await listLoopDevices()).filter(({ backingFile }) => backingFile.startsWith(dir))
    expect(await devices()).toHaveLength(1)
    await run('umount', [pool.path]) // what a crash between umount and detach leaves: a stale loop device
    await openPool(options(dir))
    expect(await devices()).toHaveLength(1)
    expect(await readFile(join(pool.path, 'layers/kept'), 'utf8')).toBe('kept')
    await closePool(dir)
    expect(await devices()).toHaveLength(0)
    expect(await listHostResources({ prefix: 'wnone', dir })).toEqual([])
    await closePool(dir)
    await openPool(options(dir))
    expect(await readFile(join(pool.path, 'layers/kept'), 'utf8')).toBe('kept')
  })

  it('is closed again after a moment of use, unless somebody else had opened it', async ({ skip }) => {
    skip(await canClone(dir), '/tmp can reflink, so nothing is mounted')
    const path = join(dir, 'pool')
    const used = await withOpenPool(options(dir), async () => {
      await writeFile(join(path, 'layers/kept'), 'kept')
      return (await mountAt(path))?.type
    })
    expect(used).toBe('btrfs')
    expect(await readdir(path)).toEqual([])
    expect(await listHostResources({ prefix: 'wnone', dir })).toEqual([])
    await openPool(options(dir))
    await withOpenPool(options(dir), async () => await readdir(path))
    expect(await readFile(join(path, 'layers/kept'), 'utf8')).toBe('kept')
  })

  it('is not unmounted below somebody who opens it while it is in use for a moment', async ({ skip }) => {
    skip(await canClone(dir), '/tmp can reflink, so nothing is mounted')
    let opening: ReturnType<typeof openPool> | undefined
    await withOpenPool(options(dir), async () => {
      opening = openPool(options(dir))
    })
    const pool = await opening
    expect((await mountAt(join(dir, 'pool')))?.type).toBe('btrfs')
    expect(pool?.loopImage).toBe(join(dir, 'pool.img'))
  })

  it('names what may be removed when only images lie where the pool is to be mounted', async ({ skip }) => {
    skip(await canClone(dir), '/tmp can reflink, so nothing is mounted')
    const layers = join(dir, 'pool/layers')
    await mkdir(layers, { recursive: true })
    await writeFile(join(layers, 'build.lock'), '')
    await expect(openPool(options(dir))).rejects.toThrow(`\`rm -r ${layers}\``)
    await writeFile(join(dir, 'pool/mine'), 'mine')
    await expect(openPool(options(dir))).rejects.toThrow(/move them away/)
    await rm(join(dir, 'pool/mine'))
    await mkdir(join(dir, 'pool/capsules/one'), { recursive: true })
    await expect(openPool(options(dir))).rejects.toThrow(/move them away/)
  })

  it('names the process that keeps the pool busy', async ({ skip }) => {
    skip(await canClone(dir), '/tmp can reflink, so nothing is mounted')
    const pool = await openPool(options(dir))
    const file = await open(join(pool.path, 'capsules/busy'), 'w')
    await expect(closePool(dir)).rejects.toThrow(new RegExp(`pid ${process.pid}`))
    await file.close()
  })

  it('refuses what does not fit, and reports the disk below a sparse image when that is smaller', async () => {
    const pool = await openPool(options(dir))
    await pool.ensureSpace(16 * MIB)
    const refused = await pool.ensureSpace(2 ** 50).catch((error: unknown) => AppError.from(error).code)
    expect(refused).toBe('disk_full')
    const { bavail, bsize } = await statfs(dir)
    expect((await pool.usage()).freeBytes).toBeLessThanOrEqual(bavail * bsize)
  })

  it('sees that the disk below a sparse image is nearly full', async () => {
    const small = join(dir, 'small')
    await run('mkdir', [small])
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', small])
    try {
      const pool = await openPool(options(small))
      expect((await pool.usage()).freeBytes).toBeLessThan(64 * MIB)
      expect((await pool.usage()).totalBytes).toBe(512 * MIB)
      await closePool(small)
    } finally {
      // The kernel lets go of an image a moment after its file system was unmounted.
      await expect.poll(async () => (await runForResult('umount', [small])).exitCode, { timeout: 30_000 }).toBe(0)
    }
  })

  it('wants 10 GiB of disk before it picks a size by itself', async () => {
    const small = join(dir, 'small')
    await run('mkdir', [small])
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', small])
    try {
      const refused = openPool({ dir: small, logger: silentLogger }).catch(
        (error: unknown) => AppError.from(error).code,
      )
      expect(await refused).toBe('disk_full')
    } finally {
      await run('umount', [small])
    }
  })
})
