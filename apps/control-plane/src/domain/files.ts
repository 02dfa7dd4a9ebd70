import { Readable } from 'node:stream'
import { AppError } from '@wrenn/base'
import type { FileEntry } from '@wrenn/protocol'
import { type EntryInfo, FileType } from '@wrenn/protocol/guest'
import { fromHostError } from '../host/errors.js'
import type { HostClient } from '../host/transport.js'

const CHUNK_BYTES = 256 * 1024

export interface FileTarget {
  readonly client: HostClient
  readonly capsuleId: string
  readonly path: string
  readonly user: string
}

export interface OpenedFile {
  /** Of the whole file. */
  readonly size: number
  /** Of what follows. */
  readonly length: number
  readonly body: Readable
}

export interface ByteRange {
  readonly offset: number
  /** Absent: to the end. */
  readonly length?: number | undefined
}

/**
 * Opens a file for reading; bytes flow as the reader takes them. Destroying `body` ends the call.
 * @throws AppError `file_not_found`, `is_a_directory`, `permission_denied`, …
 */
export async function openFile(target: FileTarget, range: ByteRange): Promise<OpenedFile> {
  const { client, capsuleId, path, user } = target
  const abort = new AbortController()
  const request = {
    capsuleId,
    path,
    user,
    offset: BigInt(range.offset),
    ...(range.length === undefined ? {} : { length: BigInt(range.length) }),
  }
  try {
    const parts = client.readFile(request, { signal: abort.signal })[Symbol.asyncIterator]()
    const first = await parts.next()
    if (first.done === true || first.value.part.case !== 'stat') {
      throw new AppError('guest_error', 'The guest did not answer with a file.')
    }
    const { size, length } = first.value.part.value
    const body = Readable.from(chunks(parts), { objectMode: false, highWaterMark: CHUNK_BYTES })
    body.once('close', () => abort.abort())
    return { size: Number(size), length: Number(length), body }
  } catch (error) {
    abort.abort()
    throw fromHostError(error)
  }
}

type ReadParts = AsyncIterator<{ readonly part: { readonly case?: string | undefined; readonly value?: unknown } }>

async function* chunks(parts: ReadParts): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = await parts.next().catch((error: unknown) => {
      throw fromHostError(error)
    })
    if (next.done === true) return
    const { value } = next.value.part
    if (value instanceof Uint8Array && value.length > 0) yield value
  }
}

/**
 * Writes a file from a stream, as fast as the guest takes it. When `source` fails nothing counts as written.
 * @returns how many bytes were written
 */
export async function writeFile(target: FileTarget, source: Readable): Promise<number> {
  const { client, capsuleId, path, user } = target
  let sourceError: unknown
  const onSourceError = (error: unknown): void => {
    sourceError = error
  }
  async function* requests() {
    yield { part: { case: 'open' as const, value: { capsuleId, path, user } } }
    for await (const chunk of noting(source, onSourceError)) {
      yield { part: { case: 'chunk' as const, value: bytesOf(chunk) } }
    }
  }
  const abort = new AbortController()
  try {
    const { bytes } = await client.writeFile(requests(), { signal: abort.signal })
    return Number(bytes)
  } catch (error) {
    if (sourceError !== undefined) {
      throw new AppError('invalid_request', 'The upload ended before the file was complete.', { cause: sourceError })
    }
    throw fromHostError(error)
  } finally {
    abort.abort()
  }
}

/**
 * What `source` gives, telling when reading it fails. A `yield` between `try` and `catch` would also catch what the reader
 * throws in: a call that failed for reasons of its own.
 */
async function* noting(source: Readable, onError: (error: unknown) => void): AsyncGenerator<unknown> {
  const chunks: AsyncIterator<unknown> = source[Symbol.asyncIterator]()
  try {
    for (;;) {
      const next = await chunks.next().catch((error: unknown) => {
        onError(error)
        throw error
      })
      if (next.done === true) return
      yield next.value
    }
  } finally {
    await chunks.return?.()
  }
}

function bytesOf(chunk: unknown): Uint8Array {
  return chunk instanceof Uint8Array ? chunk : Buffer.from(String(chunk))
}

const typeNames: Record<FileType, FileEntry['type']> = {
  [FileType.UNSPECIFIED]: 'unknown',
  [FileType.FILE]: 'file',
  [FileType.DIRECTORY]: 'directory',
  [FileType.SYMLINK]: 'symlink',
}

/** @throws AppError `guest_error` when the guest sent none */
export function toFileEntry(entry: EntryInfo | undefined): FileEntry {
  if (entry === undefined) throw new AppError('guest_error', 'The guest answered without an entry.')
  const { isSymlink } = entry
  return {
    name: entry.name,
    path: entry.path,
    type: isSymlink ? 'symlink' : typeNames[entry.type],
    size: Number(entry.size),
    mode: entry.mode,
    permissions: entry.permissions,
    owner: entry.owner,
    group: entry.group,
    modified_at: Number(entry.modifiedTime?.seconds ?? 0n),
    ...(entry.symlinkTarget === undefined ? {} : { symlink_target: entry.symlinkTarget }),
    ...(isSymlink ? { target_type: typeNames[entry.type] } : {}),
  }
}
