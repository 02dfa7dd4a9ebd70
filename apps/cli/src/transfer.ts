import { randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { chmod, lstat, mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, posix } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, isErrno, pathBytes } from '@wrenn/base'
import { type Capsule, type FileInfo, FileNotFoundError } from '@wrenn/sdk'
import { packTar } from './copy/pack.js'
import type { CopyReport } from './copy/report.js'
import { unpackTar } from './copy/unpack.js'
import { writeFully } from './output.js'

interface TransferOptions extends CopyReport {
  readonly recursive: boolean
  readonly user?: string
  readonly signal?: AbortSignal
}

function callOf({ user, signal }: TransferOptions): { readonly user?: string; readonly signal?: AbortSignal } {
  return { ...(user ? { user } : {}), ...(signal ? { signal } : {}) }
}

async function statLocal(path: string, follow = true) {
  try {
    return await (follow ? stat : lstat)(pathBytes(path))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

async function statRemote(capsule: Capsule, path: string, options: TransferOptions): Promise<FileInfo | undefined> {
  try {
    return await capsule.files.stat(path, callOf(options))
  } catch (error) {
    if (error instanceof FileNotFoundError) return undefined
    throw error
  }
}

function isDirectory(info: FileInfo | undefined): boolean {
  return (info?.targetType ?? info?.type) === 'directory'
}

/** A path that names a directory by what is in it, and none that could be made elsewhere: `.`, `..`, `/`. */
function meansContents(path: string): boolean {
  return /(?:^|\/)\.{1,2}\/*$/.test(path) || /^\/*$/.test(path)
}

/** Like `cp`: into the target when that is a directory, else as the target. Links are followed unless `recursive`. */
export async function upload(
  capsule: Capsule,
  source: string,
  target: string,
  options: TransferOptions,
): Promise<void> {
  if (source === '-') {
    const { sizeBytes } = await capsule.files.write(target, webStream(process.stdin), callOf(options))
    options.onFile(target, sizeBytes)
    return
  }
  const info = await statLocal(source, !options.recursive || /\/\.{0,2}$/.test(source))
  if (!info) throw new AppError('file_not_found', `There is no ${source} here.`)
  const remote = await statRemote(capsule, target, options)
  const into = target.endsWith('/') || isDirectory(remote)
  const name = basename(source)
  if (!options.recursive || info.isFile()) {
    if (info.isDirectory()) throw needsRecursive(source)
    return await uploadFile(capsule, source, into ? posix.join(target, name) : target, options)
  }
  if (meansContents(source)) return await pack(capsule, source, undefined, target, options)
  if (into) return await pack(capsule, source, name, target, options)
  if (info.isDirectory() && remote !== undefined) {
    throw new AppError(
      'not_a_directory',
      `${target} is in the capsule and no directory: a directory cannot replace it.`,
    )
  }
  await pack(capsule, source, posix.basename(target), posix.dirname(target), options)
}

async function uploadFile(capsule: Capsule, source: string, target: string, options: TransferOptions): Promise<void> {
  const info = await stat(pathBytes(source))
  const mode = info.isFile() ? { mode: info.mode & 0o777 } : {}
  const content = webStream(createReadStream(pathBytes(source)))
  const { sizeBytes } = await capsule.files.write(target, content, { ...callOf(options), ...mode })
  options.onFile(target, sizeBytes)
}

async function pack(
  capsule: Capsule,
  source: string,
  as: string | undefined,
  target: string,
  options: TransferOptions,
): Promise<void> {
  const place = source.replace(/\/+$/, '')
  // With a slash behind it a link stands for the directory it leads to, and so does `.`.
  const whole =
    place === source && as !== undefined ? undefined : await realpath(pathBytes(source), { encoding: 'buffer' })
  const parts =
    whole === undefined ? { folder: pathBytes(dirname(place)), name: pathBytes(basename(place)) } : splitWhole(whole)
  const tar = packTar({ ...parts, ...(as === undefined ? {} : { as: pathBytes(as) }) }, target, options)
  await capsule.files.writeArchive(target, webStream(Readable.from(tar, { objectMode: false })), callOf(options))
}

function splitWhole(path: Buffer): { readonly folder: Buffer; readonly name: Buffer } {
  const at = path.lastIndexOf('/')
  const name = path.subarray(at + 1)
  return { folder: path.subarray(0, Math.max(1, at)), name: name.length === 0 ? Buffer.from('.') : name }
}

/**
 * Like `cp`, the other way: `-` is stdout. A file appears under its name when it is whole. Links are followed unless
 * `recursive`.
 * @throws AppError `invalid_request`, `copy_incomplete`, …; WrennError
 */
export async function download(
  capsule: Capsule,
  source: string,
  target: string,
  options: TransferOptions,
): Promise<void> {
  if (target === '-') {
    const stream = await capsule.files.readStream(source, callOf(options))
    for await (const chunk of stream) await writeFully(process.stdout, chunk)
    return
  }
  const info = await capsule.files.stat(source, callOf(options))
  const local = await statLocal(target)
  const into = target.endsWith('/') || local?.isDirectory() === true
  // The name that the user wrote, if it is one: what the capsule says of it is not trusted.
  const name = /^~\/*$/.test(source) ? basename(info.path) : posix.basename(source)
  if (!options.recursive || info.type === 'file') {
    if (isDirectory(info)) throw needsRecursive(source)
    return await downloadFile(capsule, source, info.mode, into ? { folder: target, name } : { path: target }, options)
  }
  const isContents = meansContents(source)
  if (!isContents && !into && local !== undefined && isDirectory(info)) {
    throw new AppError('not_a_directory', `${target} is no directory: a directory cannot replace it.`)
  }
  const folder = into || isContents ? target : dirname(target)
  await mkdir(pathBytes(folder), { recursive: true })
  const call = { ...callOf(options), onNote: options.onNote }
  const stream = await capsule.files.readArchive(source, call)
  const named = isContents ? {} : { name: pathBytes(into ? name : basename(target)) }
  const shown = isContents ? target : into ? join(target, name) : target
  await unpackTar(chunksOf(stream), { folder, followName: !into, ...named }, shown, options)
}

async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) yield chunk
}

type FilePlace = { readonly path: string } | { readonly folder: string; readonly name: string }

async function downloadFile(
  capsule: Capsule,
  source: string,
  mode: number,
  place: FilePlace,
  options: TransferOptions,
): Promise<void> {
  const shown = 'path' in place ? place.path : join(place.folder, place.name)
  const existing = await statLocal(shown)
  const stream = await capsule.files.readStream(source, callOf(options))
  await mkdir(pathBytes(dirname(shown)), { recursive: true })
  if ('path' in place && existing?.isFile() === false) {
    // A terminal, a pipe, /dev/null: what it is stays.
    const sink = createWriteStream(pathBytes(shown), { flags: 'w' })
    await pipeline(nodeStream(stream), sink)
    options.onFile(shown, sink.bytesWritten)
    return
  }
  // A link that the user names is followed; one that lies in a folder could be from an earlier copy, and is replaced.
  const path =
    'path' in place && existing !== undefined
      ? await realpath(pathBytes(shown), { encoding: 'buffer' })
      : pathBytes(shown)
  const at = path.lastIndexOf('/')
  const part = Buffer.concat([path.subarray(0, at + 1), Buffer.from(`.wrenn-part-${randomBytes(6).toString('hex')}`)])
  try {
    // Open before anything can break off: what a stream is still opening then would be made after it was removed.
    const sink = (await open(part, 'wx', 0o600)).createWriteStream()
    await pipeline(nodeStream(stream), sink)
    await chmod(part, mode & 0o777)
    await rename(part, path)
    options.onFile(shown, sink.bytesWritten)
  } catch (error) {
    await stream.cancel().catch(() => {}) // where nothing could be opened for it
    await rm(part, { force: true })
    throw error
  }
}

function needsRecursive(path: string): AppError {
  return new AppError('is_a_directory', `${path} is a directory: give -r to copy it with everything in it.`)
}

function webStream(stream: Readable): ReadableStream<Uint8Array> {
  return Readable.toWeb(stream) as ReadableStream<Uint8Array> // the same class, typed twice
}

function nodeStream(stream: ReadableStream<Uint8Array>): Readable {
  return Readable.fromWeb(stream as import('node:stream/web').ReadableStream) // the same class, typed twice
}
