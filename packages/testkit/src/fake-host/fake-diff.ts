import { createHash } from 'node:crypto'
import type { Stats } from 'node:fs'
import { lstat, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError, pathBytes, pathText } from '@wrenn/base'
import type { FileChangeSchema } from '@wrenn/protocol/host'

type FileChange = MessageInitShape<typeof FileChangeSchema>
type Tree = ReadonlyMap<string, Stats>

/** What is different in `to`, sorted by path; everything below a directory that came or went is listed too. */
export async function diffTrees(from: string, to: string, below: string): Promise<FileChange[]> {
  const [before, after] = [await scan(from), await scan(to)]
  const paths = [...new Set([...before.keys(), ...after.keys()])].filter((path) => isBelow(path, below)).sort(byBytes)
  const changes: FileChange[] = []
  for (const path of paths) {
    const old = before.get(path)
    const now = after.get(path)
    if (old === undefined && now !== undefined) changes.push({ change: 'added', path, ...describe(now) })
    else if (old !== undefined && now === undefined) changes.push({ change: 'removed', path, ...describe(old) })
    else if (old !== undefined && now !== undefined) {
      const what = await differences({ path: join(from, path), stats: old }, { path: join(to, path), stats: now })
      if (what.length > 0) changes.push({ change: 'changed', path, ...describe(now), what })
    }
  }
  return changes
}

/** Bytes of all files below `dir`. */
export async function treeBytes(dir: string): Promise<number> {
  return [...(await scan(dir)).values()].reduce((sum, stats) => sum + (stats.isFile() ? stats.size : 0), 0)
}

/** Changes with any name, mode or content of the tree. */
export async function treeDigest(dir: string): Promise<string> {
  const sum = createHash('sha256')
  for (const [path, stats] of [...(await scan(dir))].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const place = pathBytes(join(dir, path))
    sum.update(`${path}\0${stats.mode}\0`)
    if (stats.isFile()) sum.update(await readFile(place))
    if (stats.isSymbolicLink()) sum.update(await readlink(place))
  }
  return sum.digest('hex')
}

/** The content of a file of the tree, all of it, or why not. */
export async function readTreeFile(root: string, path: string, maxBytes: number): Promise<Uint8Array> {
  if (!path.startsWith('/')) throw new AppError('invalid_request', 'path must be absolute and without "..".')
  const place = pathBytes(join(root, path))
  const stats = await lstat(place).catch(() => undefined)
  if (stats === undefined) throw new AppError('file_not_found', `There was no ${path} at that moment.`)
  const type = typeOf(stats)
  if (type === 'directory') throw new AppError('is_a_directory', `${path} was a directory at that moment.`)
  if (type !== 'file') throw new AppError('invalid_request', `path: ${path} was no file at that moment, but a ${type}.`)
  if (stats.size > maxBytes) throw new AppError('too_large', `${path} had ${stats.size} bytes at that moment.`)
  return await readFile(place)
}

async function scan(root: string): Promise<Tree> {
  const tree = new Map<string, Stats>()
  const walk = async (dir: string): Promise<void> => {
    for (const name of await readdir(pathBytes(join(root, dir)), { encoding: 'buffer' })) {
      const path = `${dir}/${pathText(name)}`
      const stats = await lstat(pathBytes(join(root, path)))
      tree.set(path, stats)
      if (stats.isDirectory()) await walk(path)
    }
  }
  await walk('')
  return tree
}

interface Entry {
  readonly path: string
  readonly stats: Stats
}

async function differences(a: Entry, b: Entry): Promise<string[]> {
  const type = typeOf(b.stats)
  if (typeOf(a.stats) !== type) return ['type']
  const what: string[] = []
  if (type === 'file' && !(await sameContent(a, b))) what.push('content')
  if (a.stats.mode !== b.stats.mode) what.push('mode')
  if (a.stats.uid !== b.stats.uid || a.stats.gid !== b.stats.gid) what.push('owner')
  if (type === 'symlink' && !(await linkOf(a)).equals(await linkOf(b))) what.push('target')
  return what
}

async function sameContent(a: Entry, b: Entry): Promise<boolean> {
  return a.stats.size === b.stats.size && (await readFile(pathBytes(a.path))).equals(await readFile(pathBytes(b.path)))
}

async function linkOf({ path }: Entry): Promise<Buffer> {
  return await readlink(pathBytes(path), { encoding: 'buffer' })
}

function describe(stats: Stats): { type: string; size: bigint } {
  return { type: typeOf(stats), size: BigInt(stats.isFile() || stats.isSymbolicLink() ? stats.size : 0) }
}

function typeOf(stats: Stats): string {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  return stats.isSymbolicLink() ? 'symlink' : 'other'
}

function isBelow(path: string, folder: string): boolean {
  const plain = folder.replace(/\/+$/, '')
  return path === plain || path.startsWith(`${plain}/`)
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(pathBytes(a), pathBytes(b))
}
