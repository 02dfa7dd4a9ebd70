import {
  chmodSync,
  closeSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { isErrno } from '@wrenn/base'
import fc from 'fast-check'
import { TESTER } from '../agent-harness.js'
import { bytesOf, type ContentSpec, content, directoryMode, mode, nameBytes } from './arbitraries.js'
import { type Machine, word } from './shell.js'

/** A path below the root of a tree: its names. */
export type Names = readonly Buffer[]

/** An entry lies in the entry that `parent` counts to, among those before it and the root; in the nearest directory above it. */
interface Place {
  readonly parent: number
  readonly name: Buffer
  readonly owner: number
  /** Nanoseconds are past what a double of milliseconds can say. */
  readonly mtime: string
}

export type EntrySpec = Place &
  (
    | { readonly kind: 'file'; readonly content: ContentSpec; readonly mode: number }
    | { readonly kind: 'directory'; readonly mode: number }
    | { readonly kind: 'symlink'; readonly to: number | 'nothing' | 'itself' }
    | { readonly kind: 'hard link'; readonly to: number }
    | { readonly kind: 'fifo' }
  )

const place = {
  parent: fc.nat(),
  name: nameBytes,
  owner: fc.nat(),
  mtime: fc.constantFrom(
    ...[
      '1600000000',
      '0',
      '-86400',
      '1700000000.999999999',
      '1700000000.123456789',
      '1700000000.999999',
      '4102444800.5',
    ],
  ),
}

const entry: fc.Arbitrary<EntrySpec> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ ...place, kind: fc.constant('file' as const), content, mode }) },
  { weight: 4, arbitrary: fc.record({ ...place, kind: fc.constant('directory' as const), mode: directoryMode }) },
  {
    weight: 3,
    arbitrary: fc.record({
      ...place,
      kind: fc.constant('symlink' as const),
      to: fc.oneof(fc.nat(), fc.constantFrom('nothing' as const, 'itself' as const)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ ...place, kind: fc.constant('hard link' as const), to: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ ...place, kind: fc.constant('fifo' as const) }) },
)

export const treeSpec = fc.array(entry, { maxLength: 10 })

/** The user, root, somebody else with a group that the user is in, and strangers. */
const owners: readonly (readonly [number, number])[] = [
  [TESTER.uid, TESTER.gid],
  [0, 0],
  [1, TESTER.groups[0]],
  [1, 1],
]

interface Planted {
  readonly names: Names
  readonly kind: EntrySpec['kind']
}

export function pathIn(root: string, names: Names): Buffer {
  return Buffer.concat([Buffer.from(root), ...names.flatMap((name) => [Buffer.from('/'), name])])
}

/**
 * Makes a tree below `root`, a directory; the same one wherever it is called for the same `spec`. An entry whose name is taken is
 * left out. @returns the paths of its entries
 */
export async function plant(machine: Machine, root: string, spec: readonly EntrySpec[]): Promise<readonly Names[]> {
  const planted: Planted[] = [{ names: [], kind: 'directory' }]
  const made: { readonly path: Buffer; readonly spec: EntrySpec }[] = []
  for (const each of spec) {
    const names = [...directoryFor(planted, each.parent), each.name]
    const path = pathIn(root, names)
    if (path.length > 2_000) continue
    try {
      await make(machine, root, path, each, planted)
    } catch (error) {
      if (!isErrno(error, 'EEXIST', 'ENOENT', 'ENOTDIR')) throw error
      continue
    }
    planted.push({ names, kind: each.kind })
    made.push({ path, spec: each })
  }
  // Innermost first: what happens in a directory changes its time.
  for (const { path, spec: each } of made.reverse()) finish(path, each)
  const times = [...new Set(made.map(({ spec: { mtime } }) => mtime))]
  const touches = times.map((time) => {
    const paths = made.filter(({ spec: { mtime } }) => mtime === time).map(({ path }) => word(path))
    return `touch -h -d @${time} -- ${paths.join(' ')}`
  })
  if (touches.length > 0) await machine.mustRun(touches.join('\n'))
  return planted.slice(1).map(({ names }) => names)
}

function directoryFor(planted: readonly Planted[], at: number): Names {
  const directories = planted.filter(({ kind }) => kind === 'directory')
  return directories[at % directories.length]?.names ?? []
}

async function make(
  machine: Machine,
  root: string,
  path: Buffer,
  spec: EntrySpec,
  planted: readonly Planted[],
): Promise<void> {
  if (spec.kind === 'directory') mkdirSync(path)
  else if (spec.kind === 'file') writeSparsely(path, bytesOf(spec.content))
  else if (spec.kind === 'symlink') symlinkSync(linkText(root, path, spec, planted), path)
  else if (spec.kind === 'fifo') await makeFifo(machine, path)
  else {
    const files = planted.filter(({ kind }) => kind === 'file')
    const to = files[spec.to % Math.max(1, files.length)]
    if (to === undefined) throw Object.assign(new Error('There is no file yet.'), { code: 'ENOENT' })
    linkSync(pathIn(root, to.names), path)
  }
}

async function makeFifo(machine: Machine, path: Buffer): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false }))
    throw Object.assign(new Error('The name is taken.'), { code: 'EEXIST' })
  await machine.mustRun(`mkfifo -- ${word(path)}`)
}

/** Relative, so that twin trees have the same. */
function linkText(
  root: string,
  path: Buffer,
  { to, name }: Extract<EntrySpec, { readonly kind: 'symlink' }>,
  planted: readonly Planted[],
): Buffer {
  if (to === 'nothing') return Buffer.from('missing')
  if (to === 'itself') return name
  const target = planted[to % planted.length]?.names ?? []
  const depth = path.subarray(Buffer.byteLength(root)).filter((byte) => byte === 0x2f).length - 1
  const parts = [...Array.from({ length: depth }, () => Buffer.from('..')), ...target]
  return Buffer.concat([Buffer.from('.'), ...parts.flatMap((part) => [Buffer.from('/'), part])])
}

const BLOCK_BYTES = 4_096

function writeSparsely(path: Buffer, bytes: Buffer): void {
  const fd = openSync(path, 'wx')
  try {
    ftruncateSync(fd, bytes.length)
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const block = bytes.subarray(at, at + BLOCK_BYTES)
      if (block.some((byte) => byte !== 0)) writeSync(fd, block, 0, block.length, at)
    }
  } finally {
    closeSync(fd)
  }
}

function finish(path: Buffer, spec: EntrySpec): void {
  if (spec.kind === 'hard link') return
  const [uid, gid] = owners[spec.owner % owners.length] ?? [0, 0]
  lchownSync(path, uid, gid)
  if (spec.kind === 'file' || spec.kind === 'directory') chmodSync(path, spec.mode)
}
