import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { join } from 'node:path'
import { pathText } from '@wrenn/base'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import fc from 'fast-check'
import { expect } from 'vitest'
import { type AgentHarness, SECRET } from '../agent-harness.js'
import { nameBytes } from './arbitraries.js'
import { type Machine, type Who, word } from './shell.js'
import { type EntrySpec, type Names, pathIn, plant } from './tree.js'

/** An entry of the tree, or what would lie below it. */
export interface PathSpec {
  readonly at: number
  readonly more: Names
}

export const anyWho: fc.Arbitrary<Who> = fc.constantFrom('root', 'tester')
const noMore = fc.constant([])
/** Mostly what is there. */
export const anyPath: fc.Arbitrary<PathSpec> = fc.record({
  at: fc.nat(),
  more: fc.oneof(
    { weight: 3, arbitrary: noMore },
    { weight: 2, arbitrary: fc.array(nameBytes, { minLength: 1, maxLength: 2 }) },
  ),
})

/** One name in both trees: what the agent is asked for, and what the machine's tools are. */
export interface Pair {
  readonly ours: Buffer
  readonly theirs: Buffer
  /** As the agent is asked for it. */
  readonly text: string
  /** The directory that is the whole tree. */
  readonly isRoot: boolean
}

export interface Answer {
  readonly status: number
  readonly code: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** The connection ended before the answer did. */
  readonly isCut: boolean
}

export interface Question {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
}

/**
 * Two trees that are alike: in one the agent does what is asked, in the other this machine's own tools do. In the end they must be
 * alike again.
 */
export class World {
  readonly harness: AgentHarness
  readonly machine: Machine
  /** For what scripts and tests need beside the trees. */
  readonly scratch: string
  /** Set when a tool stopped half-way, where nobody promises how far. */
  isTorn = false
  readonly #ours: string
  readonly #theirs: string
  #paths: readonly Names[] = []
  #files = 0

  private constructor(harness: AgentHarness, machine: Machine) {
    this.harness = harness
    this.machine = machine
    const dir = mkdtempSync(join(harness.dir, 'world-'))
    chmodSync(dir, 0o755)
    this.scratch = join(dir, 'scratch')
    this.#ours = join(dir, 'ours/tree')
    this.#theirs = join(dir, 'theirs/tree')
    for (const each of [this.scratch, this.#ours, this.#theirs]) {
      mkdirSync(each, { recursive: true })
      chmodSync(each, 0o777)
    }
  }

  static async make(harness: AgentHarness, machine: Machine, tree: readonly EntrySpec[]): Promise<World> {
    const world = new World(harness, machine)
    world.#paths = await plant(machine, world.#ours, tree)
    await plant(machine, world.#theirs, tree)
    return world
  }

  find({ at, more }: PathSpec): Pair {
    const names = [...([[], ...this.#paths][at % (this.#paths.length + 1)] ?? []), ...more]
    const ours = pathIn(this.#ours, names)
    return { ours, theirs: pathIn(this.#theirs, names), text: pathText(ours), isRoot: names.length === 0 }
  }

  /** A new file in `scratch` that everybody can read. */
  put(bytes: Uint8Array): string {
    const path = this.fresh('file')
    writeFileSync(path, bytes)
    return path
  }

  fresh(what: string): string {
    return join(this.scratch, `${what}-${this.#files++}`)
  }

  ask({ method, path, headers = {}, body }: Question): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const all = { 'x-wrenn-secret': SECRET, ...headers }
      const { port } = this.harness.agent
      const call = request({ host: '127.0.0.1', port, method, path, headers: all }, (response) => {
        const pieces: Buffer[] = []
        response.on('data', (piece: Buffer) => pieces.push(piece))
        response.on('error', () => {}) // `isCut` tells
        response.once('close', () => {
          const code = response.headers[ERROR_CODE_HEADER]
          resolve({
            status: response.statusCode ?? 0,
            code: typeof code === 'string' ? code : undefined,
            headers: response.headers,
            body: Buffer.concat(pieces),
            isCut: !response.complete,
          })
        })
      })
      call.once('error', reject).end(body)
    })
  }

  url(route: '/files' | '/archive', path: string, who: Who, more = ''): string {
    return `${route}?path=${encodeURIComponent(path)}&username=${who}${more}`
  }

  async expectAlike(): Promise<void> {
    if (!this.isTorn) await expectSameTrees(this.machine, this.#ours, this.#theirs, false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine.mustRun(`rm -rf -- ${word(join(this.scratch, '..'))}`)
  }
}

const DIGEST = [
  'tar --create --file=- --sort=name --numeric-owner --format=posix',
  '--pax-option=exthdr.name=x,delete=atime,delete=ctime',
].join(' ')

/** GNU tar judges: names, types, modes, owners, links of both kinds, contents and, where wanted, times. */
export async function expectSameTrees(machine: Machine, ours: string, theirs: string, times: boolean): Promise<void> {
  const flags = times ? '' : '--mtime=@0'
  const tarOf = (root: string): string => `${DIGEST} ${flags} -C ${word(root)} .`
  const tars = [await machine.mustRun(tarOf(ours)), await machine.mustRun(tarOf(theirs))]
  if (tars[0]?.equals(tars[1] ?? Buffer.alloc(0))) return
  const listings = [ours, theirs].map((root) => machine.mustRun(`${tarOf(root)} | tar -tvvf -`))
  const [left, right] = await Promise.all(listings)
  expect(left?.toString('latin1')).toBe(right?.toString('latin1'))
  throw new Error('The trees differ in contents, or in what a listing does not show.')
}

/** A refusal must be one of the client's own faults. */
export function expectRefused(answer: Answer, why: string): void {
  expect([answer.status >= 400 && answer.status < 500, answer.status, answer.body.toString(), why]).toEqual([
    true,
    answer.status,
    answer.body.toString(),
    why,
  ])
}

/** The code that a client reads for what a tool said. `undefined` where more than one is right. */
export function codeFor(stderr: string): string | undefined {
  if (/No such file or directory/.test(stderr)) return 'file_not_found'
  if (/Permission denied|Operation not permitted/.test(stderr)) return 'permission_denied'
  if (/Is a directory/.test(stderr)) return 'is_a_directory'
  if (/Not a directory/.test(stderr)) return 'not_a_directory'
  if (/Too many levels of symbolic links|File name too long/.test(stderr)) return 'invalid_request'
  return undefined
}
