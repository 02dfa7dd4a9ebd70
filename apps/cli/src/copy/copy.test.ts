import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { packTar } from './pack.js'
import { type EntryHead, headOf, padded } from './tar-format.js'
import { type UnpackTarget, unpackTar } from './unpack.js'

let dir: string
let notes: string[]
let files: string[]
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-copy-'))
  notes = []
  files = []
})
// Node.js cannot remove what lies deeper than the longest path.
afterEach(() => execFileSync('rm', ['-rf', dir]))

const report = {
  onFile: (path: string, sizeBytes: number) => void files.push(`${path} ${sizeBytes}`),
  onNote: (note: string) => void notes.push(note),
}

const pack = (name: string, as: string | undefined = name): Buffer =>
  Buffer.concat([
    ...packTar(
      { folder: Buffer.from(dir), name: Buffer.from(name), ...(as ? { as: Buffer.from(as) } : {}) },
      '/x',
      report,
    ),
  ])

async function* pieces(tar: Buffer, size = 1_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < tar.length; at += size) yield tar.subarray(at, at + size)
}

const unpack = (tar: Buffer, target: Partial<UnpackTarget> = {}): Promise<void> =>
  unpackTar(pieces(tar), { folder: dir, followName: true, name: Buffer.from('out'), ...target }, 'out', report)

/** A tar that no tar program would make. */
function crafted(
  ...entries: readonly (Partial<EntryHead> & { readonly at: string; readonly data?: string })[]
): Buffer {
  const blocks = entries.map(({ at, data = '', ...rest }) => {
    const head = { type: 'file', mode: 0o644, size: data.length, mtimeNs: 0n, path: Buffer.from(at), ...rest } as const
    return Buffer.concat([headOf(head), padded(Buffer.from(data))])
  })
  return Buffer.concat([...blocks, Buffer.alloc(1024)])
}

function makeTree(): void {
  const tree = join(dir, 'tree')
  mkdirSync(join(tree, 'empty'), { recursive: true })
  writeFileSync(join(tree, 'secret'), 's', { mode: 0o600 })
  writeFileSync(join(tree, 'group'), 'g')
  chmodSync(join(tree, 'group'), 0o640)
  utimesSync(join(tree, 'group'), 1_000_000_000.25, 1_000_000_000.25)
  linkSync(join(tree, 'group'), join(tree, 'same'))
  symlinkSync('secret', join(tree, 'to-file'))
  symlinkSync('empty', join(tree, 'to-folder'))
  symlinkSync('/nowhere', join(tree, 'to-nothing'))
  mkdirSync(join(tree, 'locked'))
  writeFileSync(join(tree, 'locked', 'n'.repeat(200)), 'long')
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0x63, 0xe9, 0xfe, 0xff])]), 'odd')
  writeFileSync(join(tree, 'sparse'), 'x')
  truncateSync(join(tree, 'sparse'), 2 ** 26 + 12_345)
  chmodSync(join(tree, 'locked'), 0o3555)
}

/** Everything about a tree that a copy keeps. */
function facts(root: string): unknown[] {
  const all = readdirSync(root, { encoding: 'latin1', recursive: true }).sort()
  return all.map((name) => {
    const path = Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')])
    const { mode, mtimeMs, size, nlink } = lstatSync(path)
    const isFolder = lstatSync(path).isDirectory()
    return [name, mode, Math.round(mtimeMs), isFolder ? 0 : size, isFolder ? 0 : nlink]
  })
}

describe('a tree that is packed', () => {
  it.each([
    ['GNU tar', (tar: Buffer) => execFileSync('tar', ['-x', '-p', '-C', join(dir, 'out')], { input: tar })],
    ['ourselves', (tar: Buffer) => unpack(tar, { folder: join(dir, 'out'), name: Buffer.from('tree') })],
  ])('comes out the same when unpacked by %s', async (_, unpackBy) => {
    makeTree()
    mkdirSync(join(dir, 'out'))
    await unpackBy(pack('tree'))
    expect(facts(join(dir, 'out/tree'))).toEqual(facts(join(dir, 'tree')))
    expect(
      readFileSync(Buffer.concat([Buffer.from(`${dir}/out/tree/c`), Buffer.from([0xe9, 0xfe, 0xff])]), 'utf8'),
    ).toBe('odd')
    expect(statSync(join(dir, 'out/tree/sparse')).blocks).toBeLessThan(100)
    expect(statSync(join(dir, 'out/tree/same')).ino).toBe(statSync(join(dir, 'out/tree/group')).ino)
    expect(readlinkSync(join(dir, 'out/tree/to-nothing'))).toBe('/nowhere')
    expect(notes).toEqual([])
  })

  it.each(['gnu', 'posix', 'ustar', 'v7'])('is also read in format %s of GNU tar', async (format) => {
    makeTree()
    rmSync(join(dir, 'tree/sparse'))
    if (format === 'v7' || format === 'ustar') rmSync(join(dir, 'tree/locked'), { recursive: true })
    const options = format === 'posix' || format === 'gnu' ? ['--sparse'] : []
    const tar = execFileSync('tar', ['-c', `--format=${format}`, ...options, '-C', dir, 'tree'])
    await unpack(tar)
    const [was, is] = [facts(join(dir, 'tree')), facts(join(dir, 'out'))]
    if (format === 'posix') expect(is).toEqual(was)
    else expect(is.length).toBe(was.length)
  })

  it('is as its parts when the source is what is in a directory', async () => {
    makeTree()
    mkdirSync(join(dir, 'into'))
    execFileSync('tar', ['-x', '-C', join(dir, 'into')], { input: pack('tree', '') })
    expect(readdirSync(join(dir, 'into')).sort()).toEqual(readdirSync(join(dir, 'tree')).sort())
  })
})

describe('an archive that means harm', () => {
  const outside = (): string => join(dir, 'outside')
  beforeEach(() => {
    mkdirSync(outside())
    writeFileSync(join(outside(), 'mine'), 'mine')
  })
  const untouched = (): void => {
    expect(readdirSync(outside())).toEqual(['mine'])
    expect(readFileSync(join(outside(), 'mine'), 'utf8')).toBe('mine')
    expect(statSync(join(outside(), 'mine')).nlink).toBe(1)
  }

  it.each([
    ['by ..', () => crafted({ at: 't/../../outside/evil', data: 'x' })],
    ['by an absolute name', () => crafted({ at: `${outside()}/evil`, data: 'x' })],
    [
      'through a link it brings',
      () => crafted({ at: 't/l', type: 'symlink', link: Buffer.from(outside()) }, { at: 't/l/evil', data: 'x' }),
    ],
    [
      'through a link and a folder in its place',
      () =>
        crafted(
          { at: 't/l', type: 'symlink', link: Buffer.from('../outside') },
          { at: 't/l/', type: 'directory', mode: 0o777 },
          { at: 't/l/evil', data: 'x' },
        ),
    ],
    ['by a hard link', () => crafted({ at: 't/h', type: 'hard link', link: Buffer.from('t/../../outside/mine') })],
    [
      'by a hard link through a link',
      () =>
        crafted(
          { at: 't/l', type: 'symlink', link: Buffer.from('../outside') },
          { at: 't/h', type: 'hard link', link: Buffer.from('t/l/mine') },
        ),
    ],
  ])('cannot leave its target %s', async (_, make) => {
    await expect(unpack(make())).rejects.toMatchObject({ code: 'copy_incomplete' })
    untouched()
  })

  it('cannot use a link that an earlier copy left, and writes no file through one', async () => {
    mkdirSync(join(dir, 'out'))
    symlinkSync(outside(), join(dir, 'out/folder'))
    symlinkSync(join(outside(), 'mine'), join(dir, 'out/file'))
    const tar = crafted({ at: 't/folder/evil', data: 'x' }, { at: 't/file', data: 'new' })
    await expect(unpack(tar)).rejects.toMatchObject({ code: 'copy_incomplete' })
    untouched()
    expect(readFileSync(join(dir, 'out/file'), 'utf8')).toBe('new')
    expect(lstatSync(join(dir, 'out/file')).isSymbolicLink()).toBe(false)
    const top = crafted({ at: 't/', type: 'directory' }, { at: 't/evil', data: 'x' })
    await expect(
      unpack(top, { folder: join(dir, 'out'), name: Buffer.from('folder'), followName: false }),
    ).rejects.toThrow()
    untouched()
  })

  it('brings no set-user-id bits, no devices and no owners', async () => {
    const device = headOf({ type: 'fifo', path: Buffer.from('t/dev'), mode: 0o666, size: 0, mtimeNs: 0n })
    device.write('3', 156)
    device.fill(' ', 148, 156)
    device.write(
      `${device
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    )
    const tar = crafted({ at: 't/suid', data: 'x', mode: 0o6755 })
    await unpack(Buffer.concat([device, tar]))
    expect(statSync(join(dir, 'out/suid')).mode & 0o7777).toBe(0o755)
    expect(statSync(join(dir, 'out/suid')).uid).toBe(process.getuid?.())
    expect(existsSync(join(dir, 'out/dev'))).toBe(false)
    expect(notes).toHaveLength(2)
  })

  it.each([
    ['cut inside a file', () => crafted({ at: 't', data: 'x'.repeat(600) }).subarray(0, 700)],
    ['cut between two files', () => crafted({ at: 't', data: 'x' }).subarray(0, 1024)],
    ['with a wrong checksum', () => Buffer.from(crafted({ at: 't', data: 'x' })).fill('9', 0, 1)],
    ['that is none', () => Buffer.alloc(2048, 'no')],
    ['with a size below nothing', () => Buffer.from(crafted({ at: 't' })).fill(0xff, 124, 136)],
  ])('%s fails and leaves no half file', async (_, make) => {
    mkdirSync(join(dir, 'into'))
    await expect(unpack(make(), { folder: join(dir, 'into') })).rejects.toMatchObject({ code: 'invalid_request' })
    expect(readdirSync(join(dir, 'into')).filter((name) => name.startsWith('.wrenn'))).toEqual([])
  })
})

it('names what it cannot pack and goes on', () => {
  mkdirSync(join(dir, 'tree'))
  writeFileSync(join(dir, 'tree/a'), 'a')
  execFileSync('mkfifo', [join(dir, 'tree/pipe')])
  execFileSync('perl', [
    '-MSocket',
    '-e',
    'socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])) or die',
    join(dir, 'tree/socket'),
  ])
  pack('tree')
  expect(notes).toEqual(['/x/tree/socket: left out, it is a socket'])
  expect(files).toEqual(['/x/tree/a 1'])
})

it('is packed and unpacked 100 levels deep', async () => {
  const path = join('tree', ...Array.from({ length: 100 }, (_, i) => `level-${i}-${'n'.repeat(40)}`))
  execFileSync('perl', ['-e', 'for (split "/", $ARGV[0]) { mkdir $_; chdir $_ } open(my $f, ">", "end")', path], {
    cwd: dir,
  })
  await unpack(pack('tree'))
  expect(files).toHaveLength(2)
  expect(notes).toEqual([])
})
