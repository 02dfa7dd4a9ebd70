import { existsSync, type Stats } from 'node:fs'
import { lstat, mkdir, open, readdir, readlink, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, resolve } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError, isErrno, pathBytes, pathText } from '@wrenn/base'
import { type EntryInfoSchema, FileType } from '@wrenn/protocol/guest'

const CHUNK_BYTES = 64 * 1024

export interface FileWish {
  readonly offset: bigint
  readonly length?: bigint
  readonly range: string | undefined
  readonly statOnly: boolean
}

interface WriteWish {
  readonly mode: number | undefined
  readonly headers: Readonly<Record<string, string>>
}

/** Files of one fake capsule, below a real directory. Paths that are below it already stay as they are. */
export class FakeFiles {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  get home(): string {
    return join(this.root, 'root')
  }

  locate(path: string): string {
    if (path === '' || path.includes('\0')) throw new AppError('invalid_request', 'The path is not valid.')
    if (!isAbsolute(path)) return resolve(this.home, path.replace(/^~\/?/, ''))
    const plain = resolve(path)
    return plain === this.root || plain.startsWith(`${this.root}/`) ? plain : join(this.root, plain)
  }

  #place(path: string): Buffer {
    return pathBytes(this.locate(path))
  }

  /** Of the headers of HTTP it knows `range` only. */
  async *read(path: string, wish: FileWish) {
    await using file = await this.#openForReading(path)
    const { size } = await file.handle.stat()
    const asked = rangeOf(wish.range, size)
    const offset = asked?.offset ?? Number(wish.offset)
    const length = asked === undefined ? wish.length : asked.end - offset
    const end = Math.min(size, length === undefined ? size : offset + Number(length))
    const isBeyond = asked !== undefined && offset >= size
    const range = isBeyond ? `bytes */${size}` : `bytes ${offset}-${end - 1}/${size}`
    const headers: Record<string, string> = asked === undefined ? {} : { 'content-range': range }
    const status = asked === undefined ? 200 : isBeyond ? 416 : 206
    const value = { size: BigInt(size), length: BigInt(Math.max(0, end - offset)), status, headers }
    yield { part: { case: 'stat' as const, value } }
    if (wish.statOnly) return
    for (let at = offset; at < end; ) {
      const { bytesRead, buffer } = await file.handle.read(Buffer.alloc(Math.min(CHUNK_BYTES, end - at)), {
        position: at,
      })
      if (bytesRead === 0) return
      at += bytesRead
      yield { part: { case: 'chunk' as const, value: buffer.subarray(0, bytesRead) } }
    }
  }

  async #openForReading(path: string) {
    const handle = await known(path, () => open(this.#place(path), 'r'))
    if ((await handle.stat()).isDirectory()) {
      await handle.close()
      throw new AppError('is_a_directory', `${path} is a directory.`)
    }
    return { handle, [Symbol.asyncDispose]: () => handle.close() }
  }

  /** The file appears only when it is whole. Of conditions it knows `*`: whether there is a file at all. */
  async write(path: string, chunks: AsyncIterable<Uint8Array>, { mode, headers }: WriteWish): Promise<number> {
    const target = this.locate(path)
    await known(path, () => mkdir(pathBytes(dirname(target)), { recursive: true }))
    const beside = pathBytes(`${target}.upload`)
    const handle = await known(path, () => open(beside, 'w'))
    let bytes = 0
    try {
      for await (const chunk of chunks) bytes += (await handle.write(chunk)).bytesWritten
      if (mode !== undefined) await handle.chmod(mode)
      await handle.close()
      const isThere = existsSync(pathBytes(target))
      if ((headers['if-none-match'] === '*' && isThere) || (headers['if-match'] !== undefined && !isThere)) {
        throw new AppError('precondition_failed', 'The file is not the version that the request is about.')
      }
      await known(path, () => rename(beside, pathBytes(target)))
      return bytes
    } catch (error) {
      await handle.close()
      await rm(beside, { force: true })
      throw error
    }
  }

  async stat(path: string): Promise<MessageInitShape<typeof EntryInfoSchema>> {
    return await known(path, () => entryOf(this.#place(path), path))
  }

  async list(path: string, depth: number): Promise<MessageInitShape<typeof EntryInfoSchema>[]> {
    const found = await known(path, () => readdir(this.#place(path), { encoding: 'buffer' }))
    const names = found.map(pathText).sort()
    const entries: MessageInitShape<typeof EntryInfoSchema>[] = []
    for (const name of names) {
      const below = `${path.replace(/\/$/, '')}/${name}`
      const entry = await this.stat(below)
      entries.push(entry)
      if (depth > 1 && entry.type === FileType.DIRECTORY && entry.isSymlink !== true) {
        entries.push(...(await this.list(below, depth - 1)))
      }
    }
    return entries
  }

  async makeDir(path: string): Promise<MessageInitShape<typeof EntryInfoSchema>> {
    const target = this.#place(path)
    const existing = await lstat(target).catch(() => undefined)
    if (existing?.isDirectory()) throw new AppError('conflict', `${path} exists already.`)
    if (existing !== undefined) throw new AppError('not_a_directory', `${path} is not a directory.`)
    await known(path, () => mkdir(target, { recursive: true }))
    return await this.stat(path)
  }

  async move(source: string, destination: string): Promise<MessageInitShape<typeof EntryInfoSchema>> {
    const to = this.locate(destination)
    await known(destination, () => mkdir(pathBytes(dirname(to)), { recursive: true }))
    await known(source, () => rename(this.#place(source), pathBytes(to)))
    return await this.stat(destination)
  }

  async remove(path: string): Promise<void> {
    await known(path, () => lstat(this.#place(path)))
    await rm(this.#place(path), { recursive: true })
  }
}

function rangeOf(header: string | undefined, size: number): { offset: number; end: number } | undefined {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? []
  if (first === '' && last === '') return undefined
  if (first === '') return { offset: Math.max(0, size - Number(last)), end: size }
  return { offset: Number(first), end: last === '' ? size : Number(last) + 1 }
}

/** Runs a file operation; what a guest would refuse is refused with the same code. */
export async function known<T>(path: string, task: () => Promise<T>): Promise<T> {
  try {
    return await task()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENAMETOOLONG')) throw new AppError('file_not_found', `There is no ${path}.`)
    if (isErrno(error, 'ENOTDIR', 'EEXIST')) throw new AppError('not_a_directory', `${path} is not a directory.`)
    if (isErrno(error, 'EISDIR')) throw new AppError('is_a_directory', `${path} is a directory.`)
    if (isErrno(error, 'EACCES', 'EPERM')) throw new AppError('permission_denied', `${path} is not allowed.`)
    throw error
  }
}

async function entryOf(real: Buffer, shown: string): Promise<MessageInitShape<typeof EntryInfoSchema>> {
  const own = await lstat(real)
  const isSymlink = own.isSymbolicLink()
  const target: Stats = isSymlink ? await stat(real).catch(() => own) : own
  return {
    name: basename(shown),
    path: shown,
    type: target.isDirectory() ? FileType.DIRECTORY : FileType.FILE,
    size: BigInt(target.size),
    mode: target.mode & 0o7777,
    permissions: permissions(target),
    owner: 'root',
    group: 'root',
    modifiedTime: { seconds: BigInt(Math.floor(target.mtimeMs / 1000)), nanos: 0 },
    isSymlink,
    ...(isSymlink ? { symlinkTarget: pathText(await readlink(real, { encoding: 'buffer' })) } : {}),
  }
}

function permissions(stats: Stats): string {
  const bits = [...'rwxrwxrwx'].map((letter, index) => ((stats.mode >> (8 - index)) & 1 ? letter : '-'))
  return `${stats.isDirectory() ? 'd' : '-'}${bits.join('')}`
}
