import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { constants, copyFile, mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { silentLogger, waitFor } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { diffDisks, type FileChange, readDiskFile } from '../src/capsule/diff/index.js'
import { run } from '../src/host/exec.js'
import { createLayer, formatDisk } from '../src/host/images/ext4.js'
import { closePool, openPool, type Pool } from '../src/host/pool/index.js'
import { listLoopDevices } from '../src/host/pool/loop-image.js'

const MIB = 2 ** 20
/** Each compares 20,000 files. */
const ROUNDS = 8

async function changesOf(input: Parameters<typeof diffDisks>[0]): Promise<FileChange[]> {
  const changes: FileChange[] = []
  for await (const change of diffDisks(input)) changes.push(change)
  return changes
}

/** `changed /etc/hosts content,mode` */
function brief({ change, path, what }: FileChange): string {
  return [change, path.toString('latin1'), ...(what.length === 0 ? [] : [what.join(',')])].join(' ')
}

describe.skipIf(process.getuid?.() !== 0)('a diff of two disks (needs root)', () => {
  let dir = ''
  /** Has the mounts in a mount namespace of its own, so that they go with it whatever happens. */
  let holder: ChildProcess | undefined
  const mount = async (...args: readonly string[]): Promise<string> =>
    await run('nsenter', ['--mount', '--target', String(holder?.pid), 'mount', ...args])
  let pool: Pool
  let base = ''
  let live = ''
  const root = (): string => join(dir, 'root')
  const inside = (name: string): string => `/proc/${holder?.pid}/root${dir}/${name}`
  const at = (name: string): string => inside(`root/${name}`)

  beforeAll(async () => {
    dir = await mkdtemp('/tmp/wrenn-diff-')
    pool = await openPool({ dir, sizeBytes: 2048 * MIB, logger: silentLogger })
    base = join(pool.path, 'layers/base.ext4')
    live = join(pool.path, 'capsules/live.raw')
    for (const folder of ['tree', 'lower', 'data', 'root']) mkdirSync(join(dir, folder))
    plantBase(join(dir, 'tree'))
    await createLayer(join(dir, 'tree'), base, { role: 'base', epochSeconds: 1_700_000_000 })
    await formatDisk(live, 1024, undefined)
    holder = await ownMounts()
    await mount('-o', 'loop,ro', base, join(dir, 'lower'))
    await mount('-o', 'loop,noatime,discard', live, join(dir, 'data'))
    mkdirSync(inside('data/upper'))
    mkdirSync(inside('data/work'))
    const overlay = `lowerdir=${dir}/lower,upperdir=${dir}/data/upper,workdir=${dir}/data/work,redirect_dir=on`
    await mount('-t', 'overlay', '-o', overlay, 'capsule', root())
  })

  afterAll(async () => {
    holder?.kill('SIGKILL') // and with it the mounts
    // A loop device outlives its mount for a moment, and its file keeps the pool busy.
    const isDetached = async (): Promise<true | undefined> =>
      (await listLoopDevices()).some(({ backingFile }) => backingFile.startsWith(`${pool.path}/`)) ? undefined : true
    await waitFor(isDetached, {
      timeoutMs: 10_000,
      what: 'the loop devices of the disks to be gone',
    })
    await closePool(dir)
    await rm(dir, { recursive: true, force: true })
  })

  /** What a checkpoint does to the disk of a running capsule: sync inside, then clone. */
  async function take(name: string): Promise<string> {
    const path = join(pool.path, 'capsules', `${name}.raw`)
    await run('sync', ['-f', inside('data')])
    await copyFile(live, path, constants.COPYFILE_FICLONE_FORCE)
    return path
  }

  it('reports what a user would see, in the order of the paths', async () => {
    writeFileSync(at('kept'), 'kept')
    writeFileSync(at('big'), randomBytes(20 * MIB))
    writeFileSync(at('same-size'), 'old')
    symlinkSync('old-target', at('link'))
    mkdirSync(at('was-folder/sub'), { recursive: true })
    writeFileSync(at('was-folder/sub/file'), 'x')
    mkdirSync(at('a'))
    writeFileSync(at('a/x'), 'x')
    writeFileSync(at('a-b'), 'x')
    mkdirSync(at('made'))
    writeFileSync(at('made/inside'), 'x')
    writeFileSync(at('touched'), 'touched')
    writeFileSync(at('attr'), 'attr')
    const before = await take('before')

    writeFileSync(at('same-size'), 'new')
    appendFileSync(at('big'), 'tail')
    chmodSync(at('etc/mode'), 0o600) // copied up: content is that of the base
    chownSync(at('etc/owner'), 1000, 1000)
    writeFileSync(at('etc/content'), 'other')
    unlinkSync(at('etc/removed'))
    rmSync(at('usr/share'), { recursive: true })
    mkdirSync(at('usr/share')) // opaque: nothing of the base shows through
    writeFileSync(at('usr/share/own'), 'own')
    renameSync(at('usr/lib'), at('usr/lib-moved')) // a redirect
    renameSync(at('opt/one'), at('one')) // an absolute redirect
    unlinkSync(at('link'))
    symlinkSync('new-target', at('link'))
    rmSync(at('was-folder'), { recursive: true })
    writeFileSync(at('was-folder'), 'now a file')
    unlinkSync(at('a/x'))
    writeFileSync(at('a/y'), 'y')
    unlinkSync(at('a-b'))
    renameSync(at('made'), at('renamed'))
    linkSync(at('kept'), at('kept-too'))
    utimesSync(at('touched'), 1, 1)
    await run('setfattr', ['-n', 'user.note', '-v', 'x', at('attr')])
    execFileSync('mkfifo', [at('fifo')])
    writeFileSync(Buffer.concat([Buffer.from(at('odd-')), Buffer.from([0xff, 0x0a])]), 'odd')
    const after = await take('after')

    const changes = await changesOf({ fromDisk: before, toDisk: after, basePath: base })
    const paths = changes.map(({ path }) => path)
    expect([...paths].sort(Buffer.compare)).toEqual(paths)
    expect(changes.map(brief)).toEqual([
      'removed /a-b',
      'removed /a/x',
      'added /a/y',
      'changed /attr xattr',
      'changed /big content',
      'changed /etc/content content',
      'changed /etc/mode mode',
      'changed /etc/owner owner',
      'removed /etc/removed',
      'added /fifo',
      'added /kept-too',
      'changed /link target',
      'removed /made',
      'removed /made/inside',
      'added /odd-\xff\n',
      'added /one',
      'added /one/1',
      'removed /opt/one',
      'removed /opt/one/1',
      'added /renamed',
      'added /renamed/inside',
      'changed /same-size content',
      'removed /usr/lib',
      'added /usr/lib-moved',
      'added /usr/lib-moved/deep',
      'added /usr/lib-moved/deep/lib.so',
      'removed /usr/lib/deep',
      'removed /usr/lib/deep/lib.so',
      'added /usr/share/own',
      'removed /usr/share/zone',
      'changed /was-folder mode,type',
      'removed /was-folder/sub',
      'removed /was-folder/sub/file',
    ])
    const below = await changesOf({ fromDisk: before, toDisk: after, basePath: base, path: '/usr/lib' })
    expect(below.map(brief)).toEqual(['removed /usr/lib', 'removed /usr/lib/deep', 'removed /usr/lib/deep/lib.so'])
    expect(await changesOf({ fromDisk: after, toDisk: after, basePath: base })).toEqual([])
    const back = await changesOf({ fromDisk: after, toDisk: before, basePath: base })
    expect(back.map(({ path }) => path)).toEqual(paths)
    const read = async (disk: string, path: string, maxBytes = 64) =>
      (await readDiskFile({ disk, basePath: base, path, maxBytes })).toString()
    expect(await read(before, '/same-size')).toBe('old')
    expect(await read(after, '/same-size')).toBe('new')
    expect(await read(before, '/etc/mode')).toBe('of the base: etc/mode')
    expect(await read(after, '/etc/mode')).toBe('of the base: etc/mode')
    expect(await read(after, '/one/1')).toBe('1')
    expect(await read(after, '/renamed/inside')).toBe('x')
    expect(await read(after, '/odd-\ufffdff\n')).toBe('odd')
    const lines = await readDiskFile({ disk: after, basePath: base, path: '/big', maxBytes: 21 * MIB })
    expect(lines.equals(readFileSync(at('big')))).toBe(true)
    await expect(read(after, '/etc/removed')).rejects.toMatchObject({ code: 'file_not_found' })
    await expect(read(after, '/etc')).rejects.toMatchObject({ code: 'is_a_directory' })
    await expect(read(after, '/fifo')).rejects.toMatchObject({ code: 'invalid_request' })
    await expect(read(after, '/link/below')).rejects.toMatchObject({ code: 'file_not_found' })
    await expect(read(after, '/big')).rejects.toMatchObject({ code: 'too_large' })
    await expect(read(after, 'same-size')).rejects.toMatchObject({ code: 'invalid_request' })
    // Without shared blocks to rely on, everything is read and nothing else comes out.
    const copy = join(dir, 'copy.raw')
    await run('cp', ['--reflink=never', '--sparse=always', after, copy])
    expect((await changesOf({ fromDisk: before, toDisk: copy, basePath: base })).map(brief)).toEqual(changes.map(brief))
  })

  it('finds a file that was overwritten in place with all its times put back', async () => {
    writeFileSync(at('sly'), Buffer.alloc(4 * MIB, 1))
    const before = await take('sly-before')
    const after = join(pool.path, 'capsules/sly-after.raw')
    await copyFile(before, after, constants.COPYFILE_FICLONE_FORCE)
    const stat = execFileSync('debugfs', ['-R', 'blocks /upper/sly', after], { stdio: ['ignore', 'pipe', 'ignore'] })
    const block = Number(stat.toString().trim().split(' ')[100])
    await restore(after, block, randomBytes(4096))
    const changes = await changesOf({ fromDisk: before, toDisk: after, basePath: base })
    expect(changes.map(brief)).toEqual(['changed /sly content'])
    rmSync(after)
  })

  it('compares 20,000 files by what was touched, not by what is there', async () => {
    mkdirSync(at('many'))
    for (let folder = 0; folder < 100; folder += 1) {
      mkdirSync(at(`many/${folder}`))
      for (let file = 0; file < 200; file += 1) writeFileSync(at(`many/${folder}/file-${file}`), `content ${file}`)
    }
    const before = await take('many-before')
    for (let folder = 0; folder < 100; folder += 10) appendFileSync(at(`many/${folder}/file-7`), 'more')
    truncateSync(at('big'), 5 * MIB)
    const after = await take('many-after')
    const started = performance.now()
    const changes = await changesOf({ fromDisk: before, toDisk: after, basePath: base })
    const ms = Math.round(performance.now() - started)
    process.stdout.write(`diff of two disks with 20,000 files: ${ms} ms\n`)
    expect(changes).toHaveLength(11)
    expect(changes.every(({ what }) => what.join() === 'content')).toBe(true)
  })

  it('refuses a folder that contains itself', async () => {
    mkdirSync(at('circle/inner'), { recursive: true })
    const before = await take('circle-before')
    const after = join(pool.path, 'capsules/circle-after.raw')
    await copyFile(before, after, constants.COPYFILE_FICLONE_FORCE)
    await run('e2fsck', ['-p', '-E', 'journal_only', after])
    await run('debugfs', ['-w', '-R', 'link /upper/circle /upper/circle/inner/again', after])
    await expect(changesOf({ fromDisk: before, toDisk: after, basePath: base })).rejects.toMatchObject({
      code: 'snapshot_damaged',
      message: expect.stringContaining('two parents'),
    })
  })

  it('stops when it is aborted, and gives the files back', async () => {
    const disks = { fromDisk: join(pool.path, 'capsules/before.raw'), toDisk: join(pool.path, 'capsules/after.raw') }
    const abort = new AbortController()
    const stopped = (async () => {
      for await (const _ of diffDisks({ ...disks, basePath: base, signal: abort.signal }))
        abort.abort(new Error('enough'))
    })()
    await expect(stopped).rejects.toThrow('enough')
  })

  it('ends with an error, and soon, whatever byte of a disk is wrong', async () => {
    const good = join(pool.path, 'capsules/many-after.raw')
    const bad = join(dir, 'bad.raw')
    const outcomes = { fine: 0, refused: 0 }
    const used = await usedBlocks(good)
    await run('cp', ['--reflink=never', '--sparse=always', good, bad])
    for (let round = 0; round < ROUNDS; round += 1) {
      const block = used[Math.floor((round / ROUNDS) * used.length)] ?? 0
      const saved = await damage(bad, block, round)
      try {
        await changesOf({ fromDisk: good, toDisk: bad, basePath: base, signal: AbortSignal.timeout(60_000) })
        outcomes.fine += 1
      } catch (error) {
        expect(error).toMatchObject({ code: 'snapshot_damaged' })
        outcomes.refused += 1
      }
      await restore(bad, block, saved)
    }
    process.stdout.write(`damaged metadata: ${outcomes.refused} refused, ${outcomes.fine} read as other content\n`)
    expect(outcomes.refused).toBeGreaterThan(0)
  })
})

async function ownMounts(): Promise<ChildProcess> {
  const child = spawn('unshare', ['--mount', '--propagation', 'private', 'sleep', 'infinity'], { stdio: 'ignore' })
  const ours = readlinkSync('/proc/self/ns/mnt')
  const isReady = (): true | undefined => (readlinkSync(`/proc/${child.pid}/ns/mnt`) === ours ? undefined : true)
  await waitFor(isReady, { timeoutMs: 10_000, what: 'a mount namespace' })
  // unshare makes the namespace first and its mounts private then; the command runs after both.
  const isRunning = (): true | undefined =>
    readFileSync(`/proc/${child.pid}/comm`, 'utf8') === 'sleep\n' ? true : undefined
  await waitFor(isRunning, { timeoutMs: 10_000, what: 'the holder of the mounts' })
  return child
}

function plantBase(tree: string): void {
  for (const folder of ['etc', 'usr/share', 'usr/lib/deep', 'opt/one'])
    mkdirSync(join(tree, folder), { recursive: true })
  for (const name of ['etc/mode', 'etc/owner', 'etc/content', 'etc/removed', 'etc/untouched']) {
    writeFileSync(join(tree, name), `of the base: ${name}`)
  }
  writeFileSync(join(tree, 'usr/share/zone'), 'zone')
  writeFileSync(join(tree, 'usr/lib/deep/lib.so'), randomBytes(MIB))
  writeFileSync(join(tree, 'opt/one/1'), '1')
}

/** Blocks of metadata: superblock, descriptors, the first inodes, and what directories and extent trees use. */
async function usedBlocks(disk: string): Promise<readonly number[]> {
  const stats = await run('debugfs', ['-R', 'stats', disk])
  const tables = [...stats.matchAll(/inode table at (\d+)/g)].map((match) => Number(match[1]))
  const folders = ['<8>', '/', '/upper', '/upper/many', '/upper/many/1', '/upper/many/2'].map(async (path) =>
    (await run('debugfs', ['-R', `blocks ${path}`, disk])).trim().split(/\s+/).slice(0, 8).map(Number),
  )
  const first = Array.from({ length: 12 }, (_, index) => index)
  return [
    ...first,
    ...tables.slice(0, 4).flatMap((table) => [table, table + 1, table + 2]),
    ...(await Promise.all(folders)).flat(),
  ]
}

async function damage(path: string, block: number, seed: number): Promise<Buffer> {
  const file = await open(path, 'r+')
  try {
    const saved = Buffer.alloc(4096)
    await file.read(saved, 0, 4096, block * 4096)
    const bytes = Buffer.from(saved)
    if (seed % 2 === 0) randomBytes(4096).copy(bytes)
    else
      for (let at = 0; at < 4096; at += 16) bytes[at + (seed % 16)] = (bytes[at + (seed % 16)] ?? 0) ^ (1 << (seed % 8))
    await file.write(bytes, 0, 4096, block * 4096)
    return saved
  } finally {
    await file.close()
  }
}

async function restore(path: string, block: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.write(bytes, 0, bytes.length, block * 4096)
  } finally {
    await file.close()
  }
}
