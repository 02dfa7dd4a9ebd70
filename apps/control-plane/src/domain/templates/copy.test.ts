import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { copyFiles } from './copy.js'

let root: string
let context: string
/** Of files that came into the guest as a file. */
let uploads: string[]

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-test-copy-'))
  context = await mkdtemp(join(tmpdir(), 'wrenn-test-context-'))
  uploads = []
  await mkdir(join(root, 'app'))
})
afterEach(async () => {
  for (const dir of [root, context]) await rm(dir, { recursive: true, force: true })
})

/** A guest whose root is a folder. */
const guest = {
  answer: async ({ cmd, args }: { readonly cmd: string; readonly args: readonly string[] }) => {
    const { stdout } = await promisify(execFile)(cmd, [...args], { cwd: root })
    return Buffer.from(stdout)
  },
  upload: async (path: string, source: NodeJS.ReadableStream) => {
    uploads.push(path)
    await pipeline(source, createWriteStream(join(root, path)))
  },
  unpack: async (path: string, source: NodeJS.ReadableStream) => {
    await mkdir(join(root, path), { recursive: true })
    const tar = spawn('tar', ['--extract', '--preserve-permissions', '--no-same-owner', '--file=-'], {
      cwd: join(root, path),
      stdio: ['pipe', 'ignore', 'inherit'],
    })
    const ended = once(tar, 'exit')
    await pipeline(source, tar.stdin)
    expect(await ended).toEqual([0, null])
  },
}

async function add(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    await mkdir(join(context, path, '..'), { recursive: true })
    await writeFile(join(context, path), content)
  }
}

/** Copies from the folder of the build as user root in `/app`. */
async function copy(src: string, dest: string, { mode = '', tarFlags = '-c', isLarge = false } = {}): Promise<void> {
  const tar = `${context}.tar`
  execFileSync('tar', [tarFlags, '-f', tar, '-C', context, '.'])
  const step = { type: 'COPY', args: [src, dest, '', mode], force: false } as const
  const state = { user: 'root', cwd: '/app', envs: {} }
  try {
    const sizeBytes = isLarge ? 2 ** 31 : (await stat(tar)).size
    await copyFiles(guest, step, state, { stream: createReadStream(tar), sizeBytes })
  } finally {
    await rm(tar)
  }
}

async function tree(): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
    .sort()
}

const modeOf = async (path: string): Promise<string> => ((await stat(join(root, path))).mode & 0o7777).toString(8)

describe('a COPY', () => {
  it('puts the content of a folder into the destination, hidden files too', async () => {
    await add({ 'src/a': '1', 'src/.b': '2', 'src/deep/c d': '3', other: '4' })
    await copy('src', '/data')
    expect(await tree()).toEqual(['/data/.b', '/data/a', '/data/deep/c d'])
    await copy('./src/', 'here')
    expect(await tree()).toContain('/app/here/deep/c d')
  })

  it('puts a file under the name of the destination, or into it when that is a folder', async () => {
    await add({ 'x/-a b': 'text' })
    await copy('x/-a b', '/etc/new/name')
    await copy('x/-a b', '/etc/slash/')
    await copy('x/-a b', '.')
    await copy('x/-a b', '/')
    await copy('x/-a b', '/app')
    expect(await tree()).toEqual(['/-a b', '/app/-a b', '/etc/new/name', '/etc/slash/-a b'])
    expect(await readFile(join(root, 'etc/new/name'), 'utf8')).toBe('text')
  })

  it('puts what matches a pattern into the destination under its own name', async () => {
    await add({ 'a.txt': '', 'b.txt': '', 'c.md': '', 'in/d.txt': '', 'in/e.md': '' })
    await copy('*.txt', 'flat')
    await copy('**/*.txt', 'all')
    expect(await tree()).toEqual([
      '/app/all/a.txt',
      '/app/all/b.txt',
      '/app/all/d.txt',
      '/app/flat/a.txt',
      '/app/flat/b.txt',
    ])
  })

  it('gives files and folders of it a mode, and leaves folders that are there theirs', async () => {
    await add({ 'src/deep/a': '', 'src/shared/b': '' })
    await mkdir(join(root, 'data/shared'), { recursive: true })
    await chmod(join(root, 'data/shared'), 0o1777)
    await copy('src', '/data', { mode: '0640' })
    expect([await modeOf('data/deep/a'), await modeOf('data/deep'), await modeOf('data/shared')]).toEqual([
      '640',
      '750',
      '1777',
    ])
  })

  it('keeps symbolic links, and goes through those that folders of the destination are', async () => {
    await add({ 'src/bin/tool': '', 'src/real': '' })
    await symlink('real', join(context, 'src/link'))
    await mkdir(join(root, 'usr/bin'), { recursive: true })
    await symlink('usr/bin', join(root, 'bin'))
    await copy('src', '/')
    expect(await tree()).toEqual(['/bin', '/link', '/real', '/usr/bin/tool'])
    expect(await readdir(join(root, 'usr/bin'))).toEqual(['tool'])
  })

  it('of much lies in the guest once: it is unpacked while it comes', async () => {
    await add({ 'src/a': '1' })
    await copy('src', '/data', { isLarge: true })
    expect(uploads).toEqual([])
    expect(await readFile(join(root, 'data/a'), 'utf8')).toBe('1')
  })

  it.each([false, true])('takes a compressed tar, too, large: %s', async (isLarge) => {
    await add({ 'src/a': '1' })
    await copy('src', '/data', { tarFlags: '-cz', isLarge })
    expect(uploads).toHaveLength(1)
    expect(await tree()).toEqual(['/data/a'])
  })

  it('adds to folders that are there, and replaces files and links of its names', async () => {
    await add({ 'src/deep/same': 'new', 'src/deep/more/file': 'new', 'src/link': 'new', 'src/was-file/in': 'new' })
    await add({ 'src/was-empty': 'new' })
    for (const folder of ['data/deep/more', 'data/was-empty']) await mkdir(join(root, folder), { recursive: true })
    await writeFile(join(root, 'data/deep/same'), 'old')
    await writeFile(join(root, 'data/deep/more/other'), 'old')
    await writeFile(join(root, 'data/was-file'), 'old')
    await symlink('deep', join(root, 'data/link'))
    await copy('src', '/data')
    expect(await tree()).toEqual([
      '/data/deep/more/file',
      '/data/deep/more/other',
      '/data/deep/same',
      '/data/link',
      '/data/was-empty',
      '/data/was-file/in',
    ])
    expect(await readFile(join(root, 'data/deep/same'), 'utf8')).toBe('new')
    expect(await readFile(join(root, 'data/deep/more/other'), 'utf8')).toBe('old')
    expect(await readFile(join(root, 'data/link'), 'utf8')).toBe('new')
  })

  it('puts no file in place of a folder that has something', async () => {
    await add({ 'src/a': '1' })
    await mkdir(join(root, 'data/a/full'), { recursive: true })
    await expect(copy('src', '/data')).rejects.toThrow('rmdir')
    expect(await readdir(join(root, 'var/tmp'))).toEqual([])
  })

  it('puts many files beside others', async () => {
    const names = Array.from({ length: 450 }, (_, index) => `n ${index}`)
    await add(Object.fromEntries(names.map((name) => [`src/${name}`, name])))
    await mkdir(join(root, 'data'))
    await copy('src', '/data')
    expect(await tree()).toEqual(names.map((name) => `/data/${name}`).sort())
  })

  it('fails where there is no such file, and leaves nothing behind', async () => {
    await add({ a: '' })
    await expect(copy('b*', '/data')).rejects.toThrow('there is no b* among the uploaded files')
    await expect(copy('b', '/data')).rejects.toThrow('there is no b among the uploaded files')
    expect(await tree()).toEqual([])
    expect(await readdir(join(root, 'var/tmp'))).toEqual([])
  })
})
