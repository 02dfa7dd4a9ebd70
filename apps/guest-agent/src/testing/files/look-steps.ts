import { Code, ConnectError } from '@connectrpc/connect'
import { pathText } from '@wrenn/base'
import type { EntryInfo } from '@wrenn/protocol/guest'
import { Filesystem, FileType } from '@wrenn/protocol/guest'
import fc from 'fast-check'
import { expect } from 'vitest'
import { asUserHeader, TESTER } from '../agent-harness.js'
import { type Who, word } from './shell.js'
import { anyPath, anyWho, codeFor, type Pair, type PathSpec, type World } from './world.js'

export interface LookSpec {
  readonly do: 'look'
  readonly path: PathSpec
  readonly who: Who
  /** 0: only the entry itself. */
  readonly depth: number
  readonly codec: 'binary' | 'json'
}

export const lookStep: fc.Arbitrary<LookSpec> = fc.record({
  do: fc.constant('look' as const),
  path: anyPath,
  who: anyWho,
  depth: fc.nat(3),
  codec: fc.constantFrom('binary' as const, 'json' as const),
})

/** Describes an entry, or lists a directory; `stat` and `find` say what there is. */
export async function runLook(world: World, { path: spec, who, depth, codec }: LookSpec): Promise<void> {
  const path = world.find(spec)
  const client = world.harness.client(Filesystem, codec, asUserHeader(who))
  if (depth === 0) {
    const right = await world.machine.run(who, `stat --printf=x -- ${word(path.ours)}`)
    const answer = await answerOf(client.stat({ path: path.text }))
    expectSame(right.code === 0, answer, right.stderr)
    if ('value' in answer && answer.value.entry !== undefined)
      await expectEntries(world, [answer.value.entry], [path.ours])
  } else {
    await list(world, path, who, depth, await answerOf(client.listDir({ path: path.text, depth })))
  }
}

type Outcome<T> = { readonly value: T } | { readonly failure: ConnectError }

async function answerOf<T>(call: Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await call }
  } catch (error) {
    return { failure: ConnectError.from(error) }
  }
}

const codes: Readonly<Record<string, Code>> = {
  file_not_found: Code.NotFound,
  permission_denied: Code.PermissionDenied,
  not_a_directory: Code.InvalidArgument,
  invalid_request: Code.InvalidArgument,
}

function expectSame(isRight: boolean, answer: Outcome<unknown>, why: string): void {
  const failure = 'failure' in answer ? answer.failure : undefined
  expect([failure === undefined, failure?.message, why]).toEqual([isRight, failure?.message, why])
  const code = codes[codeFor(why) ?? '']
  if (failure !== undefined && code !== undefined) expect([failure.code, why]).toEqual([code, why])
}

/** How the script ends for a directory whose names can be read and nothing of them. */
const NAMES_ALONE = 99

async function list(
  world: World,
  path: Pair,
  who: Who,
  depth: number,
  answer: Outcome<{ readonly entries: EntryInfo[] }>,
): Promise<void> {
  const place = word(path.ours)
  // A link to nothing is there, and no directory. What can be read but not searched gives names alone; `/.` would need more than
  // that. Below it, what is in such a directory is left out by both.
  const right = await world.machine.run(
    who,
    `if [ -L ${place} ] && ! [ -e ${place} ]; then echo dangling >&2; exit 1; fi
    if ! [ -d ${place} ]; then find ${place}/.; exit; fi
    find -H ${place} -mindepth 1 -maxdepth ${depth} \\( -type d ! -executable -print0 -prune \\) -o -print0; code=$?
    [ $code != 0 ] || [ -x ${place} ] || exit ${NAMES_ALONE}
    exit $code`,
  )
  const isClosed = right.code === NAMES_ALONE || (right.code !== 0 && right.stdout.length > 0)
  if (right.code === NAMES_ALONE) expectSame(true, answer, right.stderr)
  if (!isClosed) expectSame(right.code === 0, answer, right.stderr)
  if (!('value' in answer)) return
  const names = split(right.stdout)
  const { entries } = answer.value
  // What is closed to the user is left out; `find` shows its name, where it is the place itself.
  if (isClosed) expect(names.map(pathText)).toEqual(expect.arrayContaining(entries.map((entry) => entry.path)))
  else expect(entries.map((entry) => entry.path).sort()).toEqual(names.map(pathText).sort())
  expectParentsFirst(entries, path)
  const known = new Map(names.map((name) => [pathText(name), name]))
  await expectEntries(
    world,
    entries,
    entries.map((entry) => known.get(entry.path) ?? Buffer.alloc(0)),
  )
}

function expectParentsFirst(entries: readonly EntryInfo[], { text }: Pair): void {
  const seen = new Set([text])
  for (const { path } of entries) {
    expect([...seen]).toContain(path.slice(0, path.lastIndexOf('/')))
    seen.add(path)
  }
}

/** What `stat` says of each: of the entry, and of what it leads to. */
const FORMAT = String.raw`%f\0%s\0%u\0%g\0%.9Y\0%A\0`

/** Compares entries with what `stat` and `readlink` say of them. */
async function expectEntries(world: World, entries: readonly EntryInfo[], paths: readonly Buffer[]): Promise<void> {
  if (entries.length === 0) return
  const script = paths.map((path) => {
    const name = word(path)
    return `stat --printf='${FORMAT}' -- ${name}
      if [ -L ${name} ]; then
        stat -L --printf='${FORMAT}' -- ${name} 2>&- && realpath -z -- ${name} || { printf '\\0\\0\\0\\0\\0\\0'; readlink -z -- ${name}; }
      else printf '\\0\\0\\0\\0\\0\\0\\0'; fi`
  })
  const fields = split(await world.machine.mustRun(`set +e\n${script.join('\n')}`))
  for (const [at, entry] of entries.entries())
    expectEntry(entry, paths[at] ?? Buffer.alloc(0), fields.slice(at * 13, at * 13 + 13))
}

const S_IFMT = 0o170000
const types = new Map([
  [0o040000, FileType.DIRECTORY],
  [0o100000, FileType.FILE],
  [0o120000, FileType.SYMLINK],
  [0o010000, FileType.UNSPECIFIED],
])
const users: Readonly<Record<string, string>> = { 0: 'root', 1: 'daemon', [TESTER.uid]: TESTER.name }
const groups: Readonly<Record<string, string>> = {
  ...users,
  [TESTER.gid]: TESTER.name,
  [TESTER.groups[0]]: `extra${TESTER.groups[0]}`,
}

function expectEntry(entry: EntryInfo, path: Buffer, fields: readonly Buffer[]): void {
  const own = fields.slice(0, 6).map(String)
  const target = fields.slice(6, 12).map(String)
  const link = fields[12] ?? Buffer.alloc(0)
  const isSymlink = (Number.parseInt(own[0] ?? '', 16) & S_IFMT) === 0o120000
  const [raw = '', size, uid = '', gid = '', time = '', permissions] = isSymlink && target[0] !== '' ? target : own
  const mode = Number.parseInt(raw, 16)
  expect({
    name: entry.name,
    path: entry.path,
    type: entry.type,
    size: String(entry.size),
    mode: entry.mode,
    owner: entry.owner,
    group: entry.group,
    permissions: entry.permissions,
    isSymlink: entry.isSymlink,
    symlinkTarget: entry.symlinkTarget,
    time: (entry.modifiedTime?.seconds ?? 0n) * 1_000_000_000n + BigInt(entry.modifiedTime?.nanos ?? 0),
  }).toEqual({
    name: pathText(path.subarray(path.lastIndexOf('/') + 1)),
    path: pathText(path),
    type: types.get(mode & S_IFMT),
    size,
    mode: mode & 0o7777,
    owner: users[uid],
    group: groups[gid],
    permissions,
    isSymlink,
    symlinkTarget: isSymlink ? pathText(link) : undefined,
    time: nanosOf(time),
  })
}

/** Of seconds with nine decimals; `stat` writes those of a time before 1970 as they count down. */
function nanosOf(time: string): bigint {
  return BigInt(time.replace('.', ''))
}

function split(bytes: Buffer): readonly Buffer[] {
  const pieces: Buffer[] = []
  let from = 0
  for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, from)) {
    pieces.push(bytes.subarray(from, at))
    from = at + 1
  }
  return pieces
}
