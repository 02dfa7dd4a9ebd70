import { randomBytes } from 'node:crypto'
import { constants, copyFile, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { silentLogger } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Blocks } from '../src/capsule/state/blocks.js'
import { makeDurable, sparseDigest, syncData, verifyDurable } from '../src/host/durability/index.js'
import { run } from '../src/host/exec.js'
import { type DataRange, dataRanges, poolExtents } from '../src/host/extents/index.js'
import { closePool, openPool } from '../src/host/pool/index.js'

const MIB = 2 ** 20

async function write(path: string, pieces: readonly (readonly [number, Buffer])[], size: number): Promise<void> {
  const file = await open(path, 'w+')
  try {
    await file.truncate(size)
    for (const [offset, bytes] of pieces) await file.write(bytes, 0, bytes.length, offset)
  } finally {
    await file.close()
  }
}

async function ranges(path: string): Promise<DataRange[]> {
  const found: DataRange[] = []
  for await (const range of dataRanges(path)) found.push(range)
  return found
}

describe.skipIf(process.getuid?.() !== 0)('durable files on a real pool (needs root)', () => {
  let dir = ''
  let pool = ''

  beforeAll(async () => {
    dir = await mkdtemp('/tmp/wrenn-durable-')
    pool = (await openPool({ dir, sizeBytes: 3072 * MIB, logger: silentLogger })).path
  })

  afterAll(async () => {
    await closePool(dir)
    await rm(dir, { recursive: true, force: true })
  })

  it('finds the written parts of a sparse file, what is still in the page cache included', async () => {
    const path = join(pool, 'sparse')
    await write(path, [[4 * MIB, randomBytes(MIB)]], 40 * MIB + 100)
    await run('fallocate', ['--keep-size', '-o', String(20 * MIB), '-l', String(MIB), path])
    expect(await ranges(path)).toEqual([{ offset: 4 * MIB, length: MIB }])
    await write(join(pool, 'end'), [[8 * MIB - 5, Buffer.from('tail!')]], 8 * MIB)
    expect(await ranges(join(pool, 'end'))).toEqual([{ offset: 8 * MIB - 4096, length: 4096 }])
    await truncate(path, 0)
    expect(await ranges(path)).toEqual([])
  })

  it('takes a file system without extent maps for one range', async () => {
    const path = `/dev/shm/wrenn-${process.pid}`
    await writeFile(path, 'in memory')
    try {
      expect(await ranges(path)).toEqual([{ offset: 0, length: 9 }])
      expect(await poolExtents([path])).toMatchObject({ unplacedBytes: 4096, exclusiveBytes: 4096 })
    } finally {
      await rm(path)
    }
  })

  it('counts shared blocks once and tells what is exclusive', async () => {
    const original = join(pool, 'original')
    const clone = join(pool, 'clone')
    await write(original, [[0, randomBytes(10 * MIB)]], 10 * MIB)
    const bytesOf = async (...paths: string[]) => Blocks.of(await poolExtents(paths)).bytes
    expect(await bytesOf(original)).toBe(10 * MIB)
    expect(await poolExtents([original])).toMatchObject({ exclusiveBytes: 10 * MIB })
    await copyFile(original, clone, constants.COPYFILE_FICLONE_FORCE)
    const file = await open(clone, 'r+')
    await file.write(randomBytes(2 * MIB), 0, 2 * MIB, 4 * MIB)
    await file.close()
    expect(await bytesOf(clone)).toBe(10 * MIB)
    expect(await poolExtents([clone])).toMatchObject({ exclusiveBytes: 2 * MIB })
    expect(await bytesOf(original, clone)).toBe(12 * MIB)
  })

  it('gives equal content one digest, however it is laid out', async () => {
    const piece = randomBytes(3 * MIB + 17)
    await write(join(pool, 'holes'), [[7 * MIB, piece]], 64 * MIB)
    await write(
      join(pool, 'zeros'),
      [
        [0, Buffer.alloc(64 * MIB)],
        [7 * MIB, piece],
      ],
      64 * MIB,
    )
    const holes = await sparseDigest(join(pool, 'holes'))
    expect(await sparseDigest(join(pool, 'zeros'))).toEqual(holes)
    await write(join(pool, 'moved'), [[8 * MIB, piece]], 64 * MIB)
    expect((await sparseDigest(join(pool, 'moved'))).sha256).not.toBe(holes.sha256)
    await write(join(pool, 'longer'), [[7 * MIB, piece]], 64 * MIB + 1)
    expect((await sparseDigest(join(pool, 'longer'))).sha256).not.toBe(holes.sha256)
  })

  it('names the file that is truncated, flipped or missing', async () => {
    const folder = join(pool, 'saved')
    await run('mkdir', [folder])
    await write(join(folder, 'mem'), [[9 * MIB, randomBytes(5 * MIB)]], 256 * MIB)
    await writeFile(join(folder, 'state'), randomBytes(400_000))
    const checksums = await makeDurable(folder, ['mem', 'state'])
    expect(await verifyDurable(folder, checksums)).toBeUndefined()
    const state = await open(join(folder, 'state'), 'r+')
    const { buffer } = await state.read(Buffer.alloc(1), 0, 1, 200_000)
    await state.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, 200_000)
    await state.close()
    expect(await verifyDurable(folder, checksums)).toMatch(/file state is damaged/)
    await truncate(join(folder, 'mem'), 100 * MIB)
    expect(await verifyDurable(folder, checksums)).toMatch(/file mem is truncated/)
    await rm(join(folder, 'mem'))
    expect(await verifyDurable(folder, checksums)).toBe('The file mem is missing.')
  })

  it('hashes 1 GiB without holding up the event loop', async () => {
    const path = join(pool, 'mem')
    const file = await open(path, 'w')
    for (let at = 0; at < 1024; at += 64) await file.write(randomBytes(64 * MIB), 0, 64 * MIB, at * MIB)
    await file.close()
    const delay = monitorEventLoopDelay({ resolution: 1 })
    let bytes = 0
    const started = performance.now()
    await syncData(path)
    const synced = performance.now()
    delay.enable()
    await makeDurable(pool, ['mem'], {
      onBytes: (more) => {
        bytes += more
      },
    })
    delay.disable()
    const sec = (performance.now() - synced) / 1000
    process.stdout.write(
      `1 GiB: sync ${Math.round(synced - started)} ms, checksum ${Math.round(1024 / sec)} MiB/s, ` +
        `event loop p99 ${(delay.percentile(99) / 1e6).toFixed(1)} ms, max ${(delay.max / 1e6).toFixed(1)} ms\n`,
    )
    expect(bytes).toBe(1024 * MIB)
  })

  it('stops at once when aborted', async () => {
    const abort = new AbortController()
    const onBytes = (): void => abort.abort(new Error('enough'))
    await expect(makeDurable(pool, ['mem'], { signal: abort.signal, onBytes })).rejects.toThrow('enough')
  })
})
