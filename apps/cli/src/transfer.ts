import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, posix, relative } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, isErrno } from '@wrenn/base'
import { type Capsule, type FileInfo, FileNotFoundError, WrennError } from '@wrenn/sdk'
import { writeFully } from './output.js'

const MAX_DEPTH = 64

export interface TransferOptions {
  readonly recursive: boolean
  readonly user?: string
  readonly onFile: (path: string, sizeBytes: number) => void
}

type FileUser = { readonly user?: string }

function userOf(options: TransferOptions): FileUser {
  return options.user ? { user: options.user } : {}
}

async function statLocal(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

async function statRemote(capsule: Capsule, path: string, user: FileUser): Promise<FileInfo | undefined> {
  try {
    return await capsule.files.stat(path, user)
  } catch (error) {
    if (error instanceof FileNotFoundError) return undefined
    throw error
  }
}

/** Like `cp`: into the target when that is a directory, else as the target. */
export async function upload(
  capsule: Capsule,
  source: string,
  target: string,
  options: TransferOptions,
): Promise<void> {
  const user = userOf(options)
  if (source === '-') {
    const { sizeBytes } = await capsule.files.write(target, webStream(process.stdin), user)
    options.onFile(target, sizeBytes)
    return
  }
  const info = await statLocal(source)
  if (!info) throw new AppError('file_not_found', `There is no ${source} here.`)
  const into = target.endsWith('/') || (await statRemote(capsule, target, user))?.type === 'directory'
  const destination = into ? posix.join(target, basename(source)) : target
  if (!info.isDirectory()) return await uploadFile(capsule, source, destination, options)
  requireRecursive(source, options)
  await uploadTree(capsule, source, destination, options)
}

async function uploadFile(capsule: Capsule, source: string, target: string, options: TransferOptions): Promise<void> {
  const info = await stat(source)
  const { sizeBytes } = await capsule.files.write(target, webStream(createReadStream(source)), userOf(options))
  if (info.mode & 0o111) await capsule.exec(['chmod', (info.mode & 0o777).toString(8), target], userOf(options))
  options.onFile(target, sizeBytes)
}

async function uploadTree(capsule: Capsule, source: string, target: string, options: TransferOptions): Promise<void> {
  await makeRemoteDir(capsule, target, userOf(options))
  for (const entry of await readdir(source, { withFileTypes: true })) {
    const from = join(source, entry.name)
    const to = posix.join(target, entry.name)
    if (entry.isDirectory()) await uploadTree(capsule, from, to, options)
    else if (entry.isFile()) await uploadFile(capsule, from, to, options)
  }
}

async function makeRemoteDir(capsule: Capsule, path: string, user: FileUser): Promise<void> {
  try {
    await capsule.files.makeDir(path, user)
  } catch (error) {
    if (!(error instanceof WrennError && error.code === 'conflict')) throw error
  }
}

export async function download(
  capsule: Capsule,
  source: string,
  target: string,
  options: TransferOptions,
): Promise<void> {
  const user = userOf(options)
  if (target === '-') {
    const stream = await capsule.files.readStream(source, user)
    for await (const chunk of stream) await writeFully(process.stdout, chunk)
    return
  }
  const info = await capsule.files.stat(source, user)
  const into = target.endsWith('/') || (await statLocal(target))?.isDirectory()
  const destination = into ? join(target, basename(info.path)) : target
  if (info.type !== 'directory') return await downloadFile(capsule, info, destination, options)
  requireRecursive(source, options)
  await mkdir(destination, { recursive: true })
  for (const entry of await capsule.files.list(info.path, { ...user, depth: MAX_DEPTH })) {
    // The names come from the capsule, which is not trusted: nothing may land outside the target.
    const below = relative(info.path, entry.path)
    if (below.split('/').includes('..'))
      throw new AppError('invalid_request', `The capsule listed ${entry.path} below ${info.path}.`)
    const to = join(destination, below)
    if (entry.type === 'directory') await mkdir(to, { recursive: true })
    else if (entry.type === 'file') await downloadFile(capsule, entry, to, options)
  }
}

async function downloadFile(capsule: Capsule, info: FileInfo, target: string, options: TransferOptions): Promise<void> {
  await mkdir(dirname(target), { recursive: true })
  const part = `${target}.part-${process.pid}`
  try {
    const stream = await capsule.files.readStream(info.path, userOf(options))
    const file = createWriteStream(part, { mode: info.mode & 0o111 ? 0o755 : 0o644 })
    await pipeline(Readable.fromWeb(stream as import('node:stream/web').ReadableStream), file) // the same class, typed twice
    await rename(part, target)
    options.onFile(target, file.bytesWritten)
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}

function requireRecursive(path: string, options: TransferOptions): void {
  if (!options.recursive)
    throw new AppError('is_a_directory', `${path} is a directory: give -r to copy it with everything in it.`)
}

function webStream(stream: Readable): ReadableStream<Uint8Array> {
  return Readable.toWeb(stream) as ReadableStream<Uint8Array> // the same class, typed twice
}
