import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { lstat, open, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import dockerignore from '@balena/dockerignore'
import { AppError, isErrno } from '@wrenn/base'
import type { ArchiveEntry, BuildContext, ContextEntry } from '@wrenn/sdk/dockerfile'
import { BLOCK_BYTES, type EntryHead, headOf, paddingOf } from '../copy/tar-format.js'

/** The module itself is the function; its types say that it has it as `default`. */
const ignore = dockerignore as unknown as typeof dockerignore.default
const PERMISSIONS = 0o7777
/** Of texts, which have no time of their own; what is decided by content must not change with it. */
const NO_TIME = 0n

/** What a Dockerfile may copy from a folder of this machine. */
export class FolderContext implements BuildContext {
  readonly #root: string
  readonly #patterns: readonly string[]
  #entries: Promise<readonly ContextEntry[]> | undefined

  /** @param patterns of a `.dockerignore`, line by line */
  constructor(root: string, patterns: readonly string[]) {
    this.#root = root
    this.#patterns = patterns
  }

  /**
   * A folder and what its `.dockerignore` says; one beside the Dockerfile, named after it, goes first, as Docker has
   * it.
   * @throws AppError `invalid_request` for what is no folder
   */
  static async open(root: string, dockerfile: string | undefined): Promise<FolderContext> {
    const stats = await lstat(join(root, '.')).catch(undefinedIfMissing)
    if (stats?.isDirectory() !== true) throw new AppError('invalid_request', `The context ${root} is no folder.`)
    const own = dockerfile === undefined ? undefined : await textOf(`${dockerfile}.dockerignore`)
    const text = own ?? (await textOf(join(root, '.dockerignore'))) ?? ''
    return new FolderContext(root, text.replace(/^\uFEFF/, '').split(/\r?\n/))
  }

  entries(): Promise<readonly ContextEntry[]> {
    this.#entries ??= this.#list()
    return this.#entries
  }

  async digest(path: string): Promise<string> {
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(join(this.#root, path))) hash.update(chunk)
    return hash.digest('hex')
  }

  archive(entries: readonly ArchiveEntry[]): ReadableStream<Uint8Array> {
    const source = Readable.from(this.#pack(entries), { objectMode: false })
    return Readable.toWeb(source) as ReadableStream<Uint8Array> // the same class, typed twice
  }

  async #list(): Promise<readonly ContextEntry[]> {
    const found: ContextEntry[] = []
    await this.#below('', found)
    // Small and capital letters differ, which the library does not hold by itself.
    const filter = ignore({ ignorecase: false }).add([...this.#patterns])
    const kept = found.filter(({ path }) => !filter.ignores(path))
    // A folder that is left out is there for what an exception keeps in it.
    const needed = new Set(kept.flatMap(({ path }) => parentsOf(path)))
    const isKept = new Set(kept)
    return found.filter((entry) => isKept.has(entry) || (entry.type === 'directory' && needed.has(entry.path)))
  }

  async #below(folder: string, found: ContextEntry[]): Promise<void> {
    const names = await readdir(join(this.#root, folder), { withFileTypes: true })
    for (const { name } of names.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = folder === '' ? name : `${folder}/${name}`
      const stats = await lstat(join(this.#root, path))
      const mode = stats.mode & PERMISSIONS
      if (stats.isSymbolicLink()) {
        found.push({ path, type: 'symlink', mode: 0o777, link: await readlink(join(this.#root, path)) })
      } else if (stats.isFile()) found.push({ path, type: 'file', mode })
      else if (stats.isDirectory()) {
        found.push({ path, type: 'directory', mode })
        await this.#below(path, found)
      }
    }
  }

  async *#pack(entries: readonly ArchiveEntry[]): AsyncGenerator<Buffer> {
    for (const one of entries) {
      if ('text' in one) yield* textEntry(one.as, one.text)
      else if (one.entry.type === 'file') yield* this.#file(one.as, one.entry, one.digest)
      else yield headOf(plainHead(one.as, one.entry))
    }
    yield Buffer.alloc(2 * BLOCK_BYTES)
  }

  /**
   * @throws AppError `invalid_request` when its bytes are not those of the digest, by which the whole upload is
   * called
   */
  async *#file(as: string, { path, mode }: ContextEntry, digest: string | undefined): AsyncGenerator<Buffer> {
    const changed = () => new AppError('invalid_request', `${path} changed while it was read; build again.`)
    await using file = await open(join(this.#root, path)).catch((error: unknown) => {
      throw isErrno(error, 'ENOENT', 'ENOTDIR') ? changed() : error
    })
    const { size, mtimeNs } = await file.stat({ bigint: true })
    yield headOf({ type: 'file', path: Buffer.from(as), mode, size: Number(size), mtimeNs })
    const hash = createHash('sha256')
    let left = Number(size)
    for await (const chunk of file.createReadStream({ autoClose: false })) {
      const bytes: Buffer = chunk.subarray(0, left)
      left -= bytes.length
      hash.update(bytes)
      yield bytes
    }
    if (left > 0 || (digest !== undefined && hash.digest('hex') !== digest)) throw changed()
    yield Buffer.alloc(paddingOf(Number(size)))
  }
}

function* textEntry(as: string, text: string): Generator<Buffer> {
  const bytes = Buffer.from(text)
  yield headOf({ type: 'file', path: Buffer.from(as), mode: 0o644, size: bytes.length, mtimeNs: NO_TIME })
  yield Buffer.concat([bytes, Buffer.alloc(paddingOf(bytes.length))])
}

function plainHead(as: string, { type, mode, link = '' }: ContextEntry): EntryHead {
  const head = { mode, size: 0, mtimeNs: NO_TIME }
  if (type === 'symlink') return { ...head, type, path: Buffer.from(as), link: Buffer.from(link) }
  return { ...head, type: 'directory', path: Buffer.from(`${as}/`) }
}

function parentsOf(path: string): string[] {
  const parts = path.split('/')
  return parts.slice(0, -1).map((_, index) => parts.slice(0, index + 1).join('/'))
}

async function textOf(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch(undefinedIfMissing)
}

function undefinedIfMissing(error: unknown): undefined {
  if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
  throw error
}
