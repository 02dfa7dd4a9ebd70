import { dirname } from 'node:path'
import { gzipSync } from 'node:zlib'
import { ConnectError } from '@connectrpc/connect'
import { Filesystem } from '@wrenn/protocol/guest'
import fc from 'fast-check'
import { expect } from 'vitest'
import { asUserHeader } from '../agent-harness.js'
import { bytesOf, type ContentSpec, content, mode } from './arbitraries.js'
import { type Ran, type Who, word } from './shell.js'
import { type Answer, anyPath, anyWho, expectRefused, type Pair, type PathSpec, type World } from './world.js'

export interface WriteSpec {
  readonly do: 'write'
  readonly path: PathSpec
  readonly who: Who
  readonly content: ContentSpec
  readonly mode: number | undefined
  readonly way: 'plain' | 'gzip' | 'form'
}

export const writeStep: fc.Arbitrary<WriteSpec> = fc.record({
  do: fc.constant('write' as const),
  path: anyPath,
  who: anyWho,
  content,
  mode: fc.option(mode, { nil: undefined }),
  way: fc.constantFrom('plain' as const, 'plain' as const, 'gzip' as const, 'form' as const),
})

/** Writes a file; `cat >`, after `mkdir -p` and before `chmod`, says what is there then. */
export async function runWrite(world: World, spec: WriteSpec): Promise<void> {
  const path = world.find(spec.path)
  const bytes = bytesOf(spec.content)
  const right = await world.machine.run(spec.who, writeScript(path.theirs, world.put(bytes), spec.mode))
  const answer = await upload(world, path, bytes, spec)
  if (right.code === 0) expectDone(answer)
  else expectRefused(answer, right.stderr)
}

/** What a shell would do. A mode that only the owner may set is refused before anything is written. */
export function writeScript(path: Buffer, from: string, bits: number | undefined): string {
  const name = word(path)
  const chmod = bits === undefined ? '' : `chmod ${bits.toString(8).padStart(4, '0')} -- ${name}`
  return `
    if [ -n ${word(chmod)} ] && [ -e ${name} ] && ! [ -O ${name} ] && [ "$(id -u)" != 0 ]; then echo foreign >&2; exit 1; fi
    if [ -p ${name} ]; then echo fifo >&2; exit 1; fi
    mkdir -p -- ${word(parentOf(path))} || exit 1
    cat ${word(from)} > ${name} || exit 1
    ${chmod}`
}

export function parentOf(path: Buffer): Buffer {
  return Buffer.from(dirname(path.toString('latin1')), 'latin1')
}

async function upload(world: World, path: Pair, bytes: Buffer, { way, who, mode: bits }: WriteSpec): Promise<Answer> {
  const query = bits === undefined ? '' : `&mode=${bits.toString(8).padStart(4, '0')}`
  const url = world.url('/files', path.text, who, query)
  if (way === 'form') return await uploadForm(world, url, bytes)
  const type = { 'content-type': 'application/octet-stream' }
  if (way === 'plain') return await world.ask({ method: 'POST', path: url, headers: type, body: bytes })
  const headers = { ...type, 'content-encoding': 'gzip' }
  return await world.ask({ method: 'POST', path: url, headers, body: gzipSync(bytes, { level: 1 }) })
}

async function uploadForm(world: World, url: string, bytes: Buffer): Promise<Answer> {
  const form = new FormData()
  form.append('file', new Blob([new Uint8Array(bytes)]), 'any-name')
  const whole = new Response(form)
  const headers = { 'content-type': whole.headers.get('content-type') ?? '' }
  return await world.ask({ method: 'POST', path: url, headers, body: new Uint8Array(await whole.arrayBuffer()) })
}

function expectDone(answer: Answer): void {
  expect([answer.status, answer.body.toString()]).toEqual([200, answer.body.toString()])
}

export interface RaceSpec {
  readonly do: 'race'
  readonly path: PathSpec
  readonly who: Who
  readonly contents: readonly ContentSpec[]
  readonly readers: number
}

export const raceStep: fc.Arbitrary<RaceSpec> = fc.record({
  do: fc.constant('race' as const),
  path: anyPath,
  who: anyWho,
  contents: fc.uniqueArray(content, { minLength: 2, maxLength: 4, selector: ({ salt }) => salt }),
  readers: fc.nat(2),
})

/** Writers at once: what is there in the end, and what readers see meanwhile, is what one of them has written. */
export async function runRace(world: World, { path: spec, who, contents, readers }: RaceSpec): Promise<void> {
  const path = world.find(spec)
  const before = await world.machine.run('root', `[ -f ${word(path.ours)} ] && cat -- ${word(path.ours)}`)
  const versions = contents.map(bytesOf)
  const url = world.url('/files', path.text, who)
  const writing = versions.map((body) => world.ask({ method: 'POST', path: url, body }))
  const reading = Array.from({ length: readers }, () => world.ask({ method: 'GET', path: url }))
  const written = await Promise.all(writing)
  const refused = written.filter(({ status }) => status !== 200)
  for (const answer of await Promise.all(reading)) {
    if (answer.status !== 200 || answer.isCut) continue
    expect([before.stdout, ...versions].some((each) => each.equals(answer.body))).toBe(true)
  }
  const after = await world.machine.run('root', `[ -f ${word(path.ours)} ] && cat -- ${word(path.ours)}`)
  const winner = versions.find((each) => each.equals(after.stdout))
  const right = await world.machine.run(who, writeScript(path.theirs, world.put(winner ?? Buffer.alloc(0)), undefined))
  expect([refused.length, right.stderr]).toEqual([right.code === 0 ? 0 : versions.length, right.stderr])
  for (const each of refused) expectRefused(each, right.stderr)
  if (right.code === 0) expect(winner).toBeDefined()
}

export type EntrySpecs =
  | { readonly do: 'mkdir'; readonly path: PathSpec; readonly who: Who }
  | { readonly do: 'remove'; readonly path: PathSpec; readonly who: Who }
  | { readonly do: 'move'; readonly path: PathSpec; readonly to: PathSpec; readonly who: Who }

export const entryStep: fc.Arbitrary<EntrySpecs> = fc.oneof(
  fc.record({ do: fc.constant('mkdir' as const), path: anyPath, who: anyWho }),
  fc.record({ do: fc.constant('remove' as const), path: anyPath, who: anyWho }),
  fc.record({ do: fc.constant('move' as const), path: anyPath, to: anyPath, who: anyWho }),
)

/** Makes, moves and removes as `mkdir -p`, `mv -T` and `rm -rf` do. The tree as a whole stays. */
export async function runEntry(world: World, spec: EntrySpecs): Promise<void> {
  const path = world.find(spec.path)
  if (path.isRoot && spec.do !== 'mkdir') return
  const client = world.harness.client(Filesystem, 'binary', asUserHeader(spec.who))
  if (spec.do === 'mkdir') {
    const name = word(path.theirs)
    const right = await world.machine.run(
      spec.who,
      `[ -d ${name} ] && { echo exists >&2; exit 1; }\nmkdir -p -- ${name}`,
    )
    await compare(right, client.makeDir({ path: path.text }))
  } else if (spec.do === 'move') {
    const to = world.find(spec.to)
    const right = await world.machine.run(spec.who, moveScript(path.theirs, to.theirs))
    await compare(right, client.move({ source: path.text, destination: to.text }))
  } else {
    // Its place is looked for once: `rm` looks again at the end, when a link on the way may be removed already.
    const right = await world.machine.run(
      spec.who,
      `cd -P ${word(parentOf(path.theirs))} 2>&- && exec rm -rf -- ./${word(baseOf(path.theirs))}
      exec rm -rf -- ${word(path.theirs)}`,
    )
    await compare(right, client.remove({ path: path.text }))
    world.isTorn ||= right.code !== 0
  }
}

/** `mv` has a complaint for what is in its place already; for a request that is done, as for rename(2). */
function moveScript(from: Buffer, to: Buffer): string {
  const real = (path: Buffer): string => `"$(cd ${word(parentOf(path))} 2>&- && pwd -P; echo x)"/${word(baseOf(path))}`
  return `
    [ -e ${word(from)} ] || [ -L ${word(from)} ] || { echo missing >&2; exit 1; }
    mkdir -p -- ${word(parentOf(to))} || exit 1
    [ ${real(from)} = ${real(to)} ] && exit 0
    mv -f -T -- ${word(from)} ${word(to)}`
}

function baseOf(path: Buffer): Buffer {
  return path.subarray(path.lastIndexOf('/') + 1)
}

const clientFaults = new Set(['InvalidArgument', 'NotFound', 'AlreadyExists', 'PermissionDenied', 'FailedPrecondition'])

async function compare(right: Ran, call: Promise<unknown>): Promise<void> {
  const failure = await call.then(
    () => undefined,
    (error: unknown) => ConnectError.from(error),
  )
  expect([failure === undefined, failure?.message, right.stderr]).toEqual([
    right.code === 0,
    failure?.message,
    right.stderr,
  ])
  if (failure !== undefined)
    expect([clientFaults.has(codeName(failure)), failure.message]).toEqual([true, failure.message])
}

function codeName({ code }: ConnectError): string {
  return (
    [
      '',
      'Canceled',
      'Unknown',
      'InvalidArgument',
      'DeadlineExceeded',
      'NotFound',
      'AlreadyExists',
      'PermissionDenied',
      'ResourceExhausted',
      'FailedPrecondition',
    ][code] ?? `code ${code}`
  )
}
