import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { copyFile, mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../src/host/exec.js'
import { Ext4, type Inode, modifiedAtNs, ROOT_INODE } from '../src/host/ext4/index.js'

const latin1 = (name: string): Buffer => Buffer.from(name, 'latin1')
const MIB = 2 ** 20

interface Listed {
  readonly kind: string
  readonly mode: number
  readonly uid: number
  readonly size: number
  readonly links: number
  readonly mtimeSec: number
  readonly target: string | undefined
}

function kernelTree(root: Buffer): Map<string, Listed> {
  const found = new Map<string, Listed>()
  const visit = (folder: Buffer, below: string): void => {
    for (const name of readdirSync(folder, { encoding: 'buffer' })) {
      const path = Buffer.concat([folder, Buffer.from('/'), name])
      const stat = lstatSync(path)
      const key = `${below}/${name.toString('latin1')}`
      const isLink = stat.isSymbolicLink()
      found.set(key, {
        kind: stat.isDirectory()
          ? 'directory'
          : isLink
            ? 'symlink'
            : stat.isFile()
              ? 'file'
              : stat.isFIFO()
                ? 'fifo'
                : 'char',
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        size: stat.isDirectory() ? 0 : stat.size,
        links: stat.nlink,
        mtimeSec: Math.floor(stat.mtimeMs / 1000),
        target: isLink ? readlinkSync(path, { encoding: 'buffer' }).toString('latin1') : undefined,
      })
      if (stat.isDirectory()) visit(path, key)
    }
  }
  visit(root, '')
  return found
}

async function readerTree(disk: Ext4): Promise<Map<string, Listed>> {
  const found = new Map<string, Listed>()
  const visit = async (directory: Inode, below: string): Promise<void> => {
    for await (const { name, inode: number } of disk.entries(directory)) {
      if (below === '' && name === 'lost+found') continue
      const inode = await disk.inode(number)
      const key = `${below}/${name}`
      found.set(key, {
        kind: inode.kind,
        mode: inode.permissions,
        uid: inode.uid,
        size: inode.kind === 'directory' ? 0 : inode.size,
        links: inode.links,
        mtimeSec: Number(modifiedAtNs(inode) / 1_000_000_000n),
        target: inode.kind === 'symlink' ? (await disk.target(inode)).toString('latin1') : undefined,
      })
      if (inode.kind === 'directory') await visit(inode, key)
    }
  }
  await visit(await disk.inode(ROOT_INODE), '')
  return found
}

/** Paths that are not equal, with both sides; a failing comparison of whole maps says nothing readable. */
function difference(a: Map<string, Listed>, b: Map<string, Listed>): readonly string[] {
  const paths = [...new Set([...a.keys(), ...b.keys()])]
  const texts = paths.map((path) => [path, JSON.stringify(a.get(path)), JSON.stringify(b.get(path))])
  return texts.filter(([, left, right]) => left !== right).map((texts) => texts.join(' | '))
}

async function find(disk: Ext4, path: string): Promise<Inode> {
  let inode = await disk.inode(ROOT_INODE)
  for (const wanted of path.split('/').filter((part) => part !== '')) {
    let next: number | undefined
    for await (const entry of disk.entries(inode)) if (entry.name === wanted) next = entry.inode
    if (next === undefined) throw new Error(`no ${path}`)
    inode = await disk.inode(next)
  }
  return inode
}

describe.skipIf(process.getuid?.() !== 0)('the ext4 reader (needs root)', () => {
  let dir = ''
  const tree = (): string => join(dir, 'tree')
  const random = randomBytes(3 * MIB + 17)

  beforeAll(async () => {
    dir = await mkdtemp('/tmp/wrenn-ext4-')
    mkdirSync(tree())
    const at = (name: string): string => join(tree(), name)
    writeFileSync(at('plain'), 'hello')
    writeFileSync(at('random'), random)
    writeFileSync(Buffer.concat([latin1(`${tree()}/`), latin1('not-utf8-\xff\xfe')]), 'odd')
    writeFileSync(at('line\nbreak and space'), 'odd')
    writeFileSync(at('x'.repeat(255)), 'long')
    writeFileSync(at('sparse'), 'start')
    truncateSync(at('sparse'), 9 * 2 ** 30)
    const sparse = await open(at('sparse'), 'r+')
    await sparse.write('middle', 5 * 2 ** 30)
    await sparse.close()
    linkSync(at('plain'), at('second-name'))
    symlinkSync('short', at('fast-link'))
    symlinkSync('y'.repeat(900), at('slow-link'))
    chmodSync(at('plain'), 0o4711)
    mkdirSync(at('big'))
    for (let index = 0; index < 10_000; index += 1) writeFileSync(at(`big/a-rather-long-file-name-${index}`), '')
    let deep = at('deep')
    for (let level = 0; level < 60; level += 1) {
      mkdirSync(deep)
      deep = join(deep, `level-${level}`)
    }
    await run('mknod', [at('whiteout'), 'c', '0', '0'])
    await run('mknod', [at('zero'), 'c', '1', '5'])
    await run('mkfifo', [at('fifo')])
    await run('chown', ['100000:100001', at('random')])
    await run('setfattr', ['-n', 'trusted.overlay.opaque', '-v', 'y', at('big')])
    await run('setfattr', ['-n', 'user.note', '-v', 'z'.repeat(900), at('plain')])
  })

  afterAll(async () => {
    await rm(dir, { recursive: true, force: true })
  })

  const shapes: ReadonlyArray<readonly [string, readonly string[]]> = [
    ['the defaults of Debian', []],
    ['what a capsule gets', ['-b', '4096', '-i', '8192', '-m', '0', '-J', 'size=16', '-O', '64bit']],
    ['small blocks', ['-b', '1024']],
    ['block maps instead of extents', ['-O', '^extents,^64bit,^flex_bg,^metadata_csum', '-I', '256']],
    ['content in inodes', ['-O', 'inline_data', '-I', '512']],
    ['descriptors beside their groups', ['-O', 'meta_bg,^resize_inode']],
  ]

  it.each(shapes)('sees the same tree as the kernel with %s', async (_, args) => {
    const path = join(dir, 'disk.ext4')
    await rm(path, { force: true })
    // The sparse file of 9 GiB takes only blocks for what was written.
    const small = args.includes('^extents,^64bit,^flex_bg,^metadata_csum') || args.includes('1024')
    await run('mkfs.ext4', ['-q', '-F', ...args, '-d', tree(), path, small ? '400M' : '1G'], { timeoutMs: 120_000 })
    await using disk = await Ext4.open(path)
    // mke2fs 1.47.0 itself cuts the size of a large sparse file when it puts content into inodes (debugfs shows the same).
    expect(difference(await readerTree(disk), kernelTree(latin1(tree())))).toEqual(
      args.includes('inline_data') ? [expect.stringContaining('/sparse ')] : [],
    )
    const file = await find(disk, 'random')
    expect((await disk.read(file, 0, file.size)).equals(random)).toBe(true)
    expect((await disk.read(file, MIB + 5, 99)).equals(random.subarray(MIB + 5, MIB + 104))).toBe(true)
    const sparse = await find(disk, 'sparse')
    expect((await disk.read(sparse, 5 * 2 ** 30 - 2, 10)).toString('latin1')).toBe('\0\0middle\0\0')
    expect((await find(disk, 'whiteout')).device).toEqual({ major: 0, minor: 0 })
    expect((await find(disk, 'zero')).device).toEqual({ major: 1, minor: 5 })
    expect((await disk.xattrs(await find(disk, 'big'))).get('trusted.overlay.opaque')?.toString()).toBe('y')
    expect((await disk.xattrs(await find(disk, 'plain'))).get('user.note')?.toString()).toBe('z'.repeat(900))
  })

  it('reads what waits in the journal like e2fsck writes it back', async () => {
    const path = join(dir, 'journal.ext4')
    const mount = join(dir, 'mnt')
    mkdirSync(mount, { recursive: true })
    await rm(path, { force: true })
    await run('mkfs.ext4', ['-q', '-F', '-J', 'size=16', path, '512M'])
    await run('mount', ['-o', 'loop,commit=300', path, mount])
    const taken = join(dir, 'taken.ext4')
    const checked = join(dir, 'checked.ext4')
    try {
      mkdirSync(join(mount, 'many'))
      for (let index = 0; index < 3000; index += 1) writeFileSync(join(mount, `many/file-${index}`), `content ${index}`)
      await run('sync', ['-f', mount])
      // Deleted directories make revoke records; a second and third transaction change the same blocks again.
      for (let index = 0; index < 3000; index += 2) await rm(join(mount, `many/file-${index}`))
      mkdirSync(join(mount, 'gone'))
      for (let index = 0; index < 500; index += 1) writeFileSync(join(mount, `gone/file-${index}`), '')
      await run('sync', ['-f', mount])
      await rm(join(mount, 'gone'), { recursive: true })
      writeFileSync(join(mount, 'reused'), randomBytes(MIB))
      await run('sync', ['-f', mount])
      const expected = kernelTree(latin1(mount))
      expected.delete('/lost+found')
      await copyFile(path, taken)
      await copyFile(path, checked)
      await using disk = await Ext4.open(taken)
      expect(difference(await readerTree(disk), expected)).toEqual([])
    } finally {
      await run('umount', [mount])
    }
    await run('e2fsck', ['-p', '-E', 'journal_only', checked])
    await using ours = await Ext4.open(taken)
    await using theirs = await Ext4.open(checked)
    expect(difference(await readerTree(ours), await readerTree(theirs))).toEqual([])
    const reused = await find(ours, 'reused')
    expect((await ours.read(reused, 0, MIB)).equals(await theirs.read(await find(theirs, 'reused'), 0, MIB))).toBe(true)
  })
})
