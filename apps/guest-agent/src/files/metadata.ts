import { spawn } from 'node:child_process'
import { appendFileSync, closeSync, fstatSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AppError, hasEscapes, isErrno } from '@wrenn/base'
import type { Tools } from '../system/tools.js'
import type { FoundEntry } from './entry.js'
import { descriptorPath, kernelPath } from './kernel-path.js'

const PREFIX = 'user.e2b.'
const MAX_PATHS_PER_RUN = 500
/** Opens what needs no right but to be found, for naming it (open(2)). */
const O_PATH = 0o10_000_000

/**
 * Key-value pairs of a file as clients of the E2B wire set them (`X-Metadata-…` headers), without the prefix of the
 * attributes.
 */
export type Metadata = Readonly<Record<string, string>>

/**
 * Metadata of files, kept in extended attributes. Node has no call for these, so a tool reads and writes them; to spare every
 * `Stat` a process, the inodes that ever got metadata are remembered, on the same disk as the files.
 */
export class MetadataStore {
  readonly #tools: Tools
  readonly #stateDir: string
  readonly #record: string
  readonly #inodes: Set<number>

  constructor(stateDir: string, tools: Tools) {
    this.#tools = tools
    this.#stateDir = stateDir
    this.#record = join(stateDir, 'inodes-with-metadata')
    this.#inodes = new Set(readLines(this.#record).map(Number))
  }

  /** Replaces all metadata of an open file. @throws AppError `invalid_request` when the file system refuses it */
  async replace(fd: number, metadata: Metadata): Promise<void> {
    const path = descriptorPath(fd)
    const inode = fstatSync(fd).ino
    const had = this.#inodes.has(inode) ? ((await this.#read([path])).get(path) ?? {}) : {}
    const names = Object.keys(metadata)
    for (const stale of Object.keys(had).filter((name) => !names.includes(name))) {
      await this.#run('setfattr', ['-x', `${PREFIX}${stale}`, '--', path])
    }
    if (names.length === 0) return
    const values = names.map((name) => `${PREFIX}${name}=0s${Buffer.from(metadata[name] ?? '').toString('base64')}`)
    this.#remember(inode)
    await this.#run('setfattr', ['--restore=-'], `# file: ${escapePath(path)}\n${values.join('\n')}\n\n`)
  }

  /** Gives an open file the extended attributes of another, access lists among them; not its privileges, which a write ends. */
  async copyAttributes(from: number, to: number): Promise<void> {
    const args = ['--absolute-names', '-d', '-m', '-', '-e', 'base64', '--', descriptorPath(from)]
    const attributes = (await this.#run('getfattr', args)).split('\n').filter((line) => /^[a-z]+\.[^=]+=/.test(line))
    const kept = attributes.filter((line) => !line.startsWith('security.capability='))
    if (kept.length === 0) return
    await this.#run('setfattr', ['--restore=-'], `# file: ${escapePath(descriptorPath(to))}\n${kept.join('\n')}\n\n`)
  }

  /** Fills in the metadata of those entries that have some. */
  async complete(found: readonly FoundEntry[]): Promise<void> {
    const marked = this.#inodes.size === 0 ? [] : found.filter((each) => this.#inodes.has(each.inode))
    for (let first = 0; first < marked.length; first += MAX_PATHS_PER_RUN) {
      const group = marked.slice(first, first + MAX_PATHS_PER_RUN)
      await this.#completeGroup(group)
    }
  }

  async #completeGroup(group: readonly FoundEntry[]): Promise<void> {
    const opened: number[] = []
    try {
      const paths = group.map(({ entry }) => argumentFor(entry.path ?? '', opened))
      const values = await this.#read(paths)
      for (const [at, { entry }] of group.entries()) entry.metadata = { ...values.get(paths[at] ?? '') }
    } finally {
      for (const fd of opened) closeSync(fd)
    }
  }

  #remember(inode: number): void {
    if (this.#inodes.has(inode)) return
    this.#inodes.add(inode)
    mkdirSync(this.#stateDir, { recursive: true })
    appendFileSync(this.#record, `${inode}\n`)
  }

  async #read(paths: readonly string[]): Promise<ReadonlyMap<string, Metadata>> {
    const args = ['--absolute-names', '-d', '-m', '^user\\.e2b\\.', '-e', 'base64', '--', ...paths]
    return parseDump(await this.#run('getfattr', args, '', true))
  }

  #run(tool: string, args: readonly string[], input = '', allowFailure = false): Promise<string> {
    const [program = tool, ...prefix] = this.#tools.command(tool)
    return new Promise((resolve, reject) => {
      const child = spawn(program, [...prefix, ...args], { env: { LC_ALL: 'C' }, stdio: ['pipe', 'pipe', 'pipe'] })
      const output: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' }
      for (const name of ['stdout', 'stderr'] as const)
        child[name].setEncoding('latin1').on('data', (text: string) => {
          output[name] += text
        })
      child.once('error', (error) =>
        reject(new AppError('guest_error', `Metadata needs the program ${tool}.`, { cause: error })),
      )
      child.once('close', (code) => {
        if (code === 0 || allowFailure) resolve(output.stdout)
        else reject(new AppError('invalid_request', `The metadata cannot be stored: ${output.stderr.trim()}`))
      })
      child.stdin.on('error', () => {
        // The tool's exit code tells.
      })
      child.stdin.end(input)
    })
  }
}

/** A program's argument is text; a file whose name is not is shown to it as an open descriptor, added to `opened`. */
function argumentFor(path: string, opened: number[]): string {
  if (!hasEscapes(path)) return path
  try {
    const fd = openSync(kernelPath(path), O_PATH)
    opened.push(fd)
    return descriptorPath(fd)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES')) return path // it has gone, and its metadata with it
    throw error
  }
}

/** The dump format writes control characters, backslashes and bytes past ASCII as octal escapes. */
export function escapePath(path: string): string {
  let escaped = ''
  for (const byte of Buffer.from(path)) {
    const isPlain = byte > 0x20 && byte < 0x7f && byte !== 0x5c
    escaped += isPlain ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`
  }
  return escaped
}

function unescapePath(escaped: string): string {
  const bytes: number[] = []
  for (let at = 0; at < escaped.length; at++) {
    const octal = /^\\([0-7]{3})/.exec(escaped.slice(at, at + 4))?.[1]
    bytes.push(octal === undefined ? escaped.charCodeAt(at) : Number.parseInt(octal, 8))
    if (octal !== undefined) at += 3
  }
  return Buffer.from(bytes).toString('utf8')
}

/** Reads `getfattr --dump`. */
export function parseDump(dump: string): ReadonlyMap<string, Metadata> {
  const files = new Map<string, Record<string, string>>()
  let current: Record<string, string> = {}
  for (const line of dump.split('\n')) {
    const path = /^# file: (.*)$/.exec(line)?.[1]
    const attribute = /^user\.e2b\.([^=]+)=0s(.*)$/.exec(line)
    if (path !== undefined) {
      current = {}
      files.set(unescapePath(path), current)
    } else if (attribute !== null) {
      current[attribute[1] ?? ''] = Buffer.from(attribute[2] ?? '', 'base64').toString('utf8')
    }
  }
  return files
}

function readLines(path: string): readonly string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
