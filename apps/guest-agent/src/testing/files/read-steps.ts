import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { expect } from 'vitest'
import { eventually } from '../eventually.js'
import { type Who, word } from './shell.js'
import { type Answer, anyPath, anyWho, codeFor, expectRefused, type Pair, type PathSpec, type World } from './world.js'

/** A range in parts of the file's size, so that it is met at every size. */
type RangeSpec =
  | { readonly kind: 'part'; readonly first: number; readonly last: number | undefined }
  | { readonly kind: 'suffix'; readonly length: number }
  | { readonly kind: 'other'; readonly text: string }

const offset = fc.oneof(fc.constantFrom(0, 1, 2, 4_095, 4_096, 262_143, 262_144, 262_145), fc.nat(30_000))
const anyRange: fc.Arbitrary<RangeSpec> = fc.oneof(
  fc.record({ kind: fc.constant('part' as const), first: offset, last: fc.option(offset, { nil: undefined }) }),
  fc.record({ kind: fc.constant('suffix' as const), length: offset }),
  fc.record({
    kind: fc.constant('other' as const),
    text: fc.constantFrom('bytes=0-1,3-4', 'bytes=abc', 'lines=1-2', 'bytes=-', 'bytes=', ''),
  }),
)

/** `Accept-Encoding`, and whether gzip is what it asks for. */
const encodings: readonly (readonly [string | undefined, boolean])[] = [
  [undefined, false],
  ['gzip', true],
  ['gzip, deflate', true],
  ['*', true],
  ['identity', false],
  ['gzip;q=0', false],
  ['gzip;q=0.5, identity;q=0.8', false],
  ['br, gzip;q=0.8, *;q=0', true],
  ['', false],
]

const conditionHeaders = ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range'] as const
type ConditionHeader = (typeof conditionHeaders)[number]
interface ConditionSpec {
  readonly header: ConditionHeader
  readonly kind: 'fresh' | 'stale' | 'weak' | 'any'
}

export interface ReadSpec {
  readonly do: 'read'
  readonly path: PathSpec
  readonly who: Who
  readonly method: 'GET' | 'HEAD'
  readonly range: RangeSpec | undefined
  readonly encoding: number
  readonly condition: ConditionSpec | undefined
}

export const readStep: fc.Arbitrary<ReadSpec> = fc.record({
  do: fc.constant('read' as const),
  path: anyPath,
  who: anyWho,
  method: fc.constantFrom('GET' as const, 'GET' as const, 'HEAD' as const),
  range: fc.option(anyRange, { nil: undefined }),
  encoding: fc.nat(encodings.length - 1),
  condition: fc.option(
    fc.record({
      header: fc.constantFrom(...conditionHeaders),
      kind: fc.constantFrom('fresh' as const, 'stale' as const, 'weak' as const, 'any' as const),
    }),
    { nil: undefined, freq: 2 },
  ),
})

/** Reads a file; `cat` says what is in it. */
export async function runRead(world: World, spec: ReadSpec): Promise<void> {
  const path = world.find(spec.path)
  const cat = await world.machine.run(spec.who, `[ -p ${word(path.theirs)} ] && exit 99\ncat -- ${word(path.theirs)}`)
  if (cat.code === 0) await judge(world, spec, path, cat.stdout)
  else {
    const answer = await world.ask({ method: spec.method, path: world.url('/files', path.text, spec.who) })
    expectRefused(answer, cat.stderr)
    if (codeFor(cat.stderr) !== undefined) expect([answer.code, cat.stderr]).toEqual([codeFor(cat.stderr), cat.stderr])
  }
}

async function judge(world: World, spec: ReadSpec, path: Pair, bytes: Buffer): Promise<void> {
  const { method, range, who, condition } = spec
  const [accept, isGzip] = encodings[spec.encoding] ?? []
  const headers: Record<string, string> = {}
  if (accept !== undefined) headers['accept-encoding'] = accept
  if (range !== undefined) headers.range = rangeText(range)
  const url = world.url('/files', path.text, who)
  const given = condition === undefined ? undefined : await conditionOf(world, url, condition)
  if (given !== undefined) headers[given.header] = given.value
  const answer = await world.ask({ method, path: url, headers })
  if (given?.outcome === 412 || given?.outcome === 304) {
    expect([answer.status, headers]).toEqual([given.outcome, headers])
    return
  }
  const applies = method === 'GET' && given?.outcome !== 'whole'
  const part = applies && range !== undefined ? partOf(range, bytes.length) : 'whole'
  if (part === 'none') return expectUnsatisfiable(answer, bytes.length)
  if (part === 'whole') expectWhole(answer, method, bytes, isGzip === true)
  else expectPart(answer, bytes, part)
}

function expectUnsatisfiable(answer: Answer, size: number): void {
  expect([answer.status, answer.headers['content-range']]).toEqual([416, `bytes */${size}`])
}

function expectPart(answer: Answer, bytes: Buffer, [start, end]: readonly [number, number]): void {
  const { status, headers, isCut } = answer
  expect([status, isCut, headers['content-encoding']]).toEqual([206, false, undefined])
  expect(headers['content-range']).toBe(`bytes ${start}-${end - 1}/${bytes.length}`)
  expect(headers['content-length']).toBe(String(end - start))
  expectBytes(answer.body, bytes.subarray(start, end))
}

function expectWhole(answer: Answer, method: string, bytes: Buffer, isGzip: boolean): void {
  const { status, headers, isCut } = answer
  expect([status, isCut]).toEqual([200, false])
  const isPacked = isGzip && bytes.length > 0
  expect(headers['content-encoding']).toBe(isPacked ? 'gzip' : undefined)
  if (!isPacked) expect(headers['content-length']).toBe(String(bytes.length))
  if (method === 'HEAD') expect(answer.body.length).toBe(0)
  else expectBytes(isPacked ? gunzipSync(answer.body) : answer.body, bytes)
}

function expectBytes(ours: Buffer, theirs: Buffer): void {
  expect([ours.length, ours.equals(theirs)]).toEqual([theirs.length, true])
}

function rangeText(range: RangeSpec): string {
  if (range.kind === 'other') return range.text
  if (range.kind === 'suffix') return `bytes=-${range.length}`
  return `bytes=${range.first}-${range.last ?? ''}`
}

/** What RFC 9110 §14.1.2 and §14.2 make of it; a server may ignore more than one range, and refuse what is none. */
function partOf(range: RangeSpec, size: number): readonly [number, number] | 'whole' | 'none' {
  if (range.kind === 'other') return 'whole'
  if (range.kind === 'suffix') {
    return range.length === 0 || size === 0 ? 'none' : [Math.max(0, size - range.length), size]
  }
  const { first, last = size - 1 } = range
  return first >= size || last < first ? 'none' : [first, Math.min(last + 1, size)]
}

interface Condition {
  readonly header: ConditionHeader
  readonly value: string
  /** `send`: as if there were none. `whole`: without regard to a range. */
  readonly outcome: 'send' | 'whole' | 304 | 412
}

const YEAR_MS = 365 * 86_400_000

/** A condition on the file as it is, with what it leads to. */
async function conditionOf(world: World, url: string, { header, kind }: ConditionSpec): Promise<Condition> {
  let etag = ''
  let modified = ''
  await eventually('the file to have a tag', async () => {
    const { headers } = await world.ask({ method: 'HEAD', path: url })
    etag = headers.etag ?? ''
    modified = headers['last-modified'] ?? ''
    return etag !== ''
  })
  const stale = new Date(Date.parse(modified) - YEAR_MS).toUTCString()
  switch (header) {
    case 'if-match':
      return { header, value: tagOf(etag, kind), outcome: kind === 'fresh' || kind === 'any' ? 'send' : 412 }
    case 'if-none-match':
      return { header, value: tagOf(etag, kind), outcome: kind === 'stale' ? 'send' : 304 }
    case 'if-range':
      return ifRange(etag, modified, stale, kind)
    case 'if-modified-since':
      return { header, value: kind === 'fresh' ? modified : stale, outcome: kind === 'fresh' ? 304 : 'send' }
    case 'if-unmodified-since':
      return { header, value: kind === 'fresh' ? modified : stale, outcome: kind === 'fresh' ? 'send' : 412 }
  }
}

function ifRange(etag: string, modified: string, stale: string, kind: ConditionSpec['kind']): Condition {
  const header = 'if-range'
  if (kind === 'fresh') return { header, value: etag, outcome: 'send' }
  if (kind === 'weak') return { header, value: `W/${etag}`, outcome: 'whole' }
  if (kind === 'stale') return { header, value: stale, outcome: 'whole' }
  // A date is only good for a second that is over.
  return { header, value: modified, outcome: Date.parse(modified) < Date.now() - 60_000 ? 'send' : 'whole' }
}

function tagOf(etag: string, kind: ConditionSpec['kind']): string {
  if (kind === 'any') return '*'
  if (kind === 'stale') return '"some-other"'
  return kind === 'weak' ? `W/${etag}` : `"a", ${etag}`
}
