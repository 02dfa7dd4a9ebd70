import { Readable } from 'node:stream'
import { AppError, codingError } from '@wrenn/base'
import type { FileEntry } from '@wrenn/protocol'
import { type EntryInfo, FileType } from '@wrenn/protocol/guest'
import { fromHostError } from '../../host/errors.js'
import type { HostClient } from '../../host/transport.js'
import type { CapsuleRef, Wake } from '../capsules/index.js'

const CHUNK_BYTES = 256 * 1024

/** As much of an upload is kept as is needed to send it again when it met the moment of a pause. */
const REPLAY_BYTES = 1024 * 1024

/** A place in one capsule, and how calls get there. */
export interface FileTarget {
  readonly client: HostClient
  readonly wake: Pick<Wake, 'use' | 'afterRefusal'>
  readonly capsule: CapsuleRef
  readonly path: string
  /** Whose rights count; empty means the capsule's user. */
  readonly user: string
  /** Ends a write. @default it ends by itself */
  readonly signal?: AbortSignal
}

interface OpenedFile {
  /** Of what follows; `undefined` when only its end will tell. */
  readonly length: number | undefined
  /** 200, 206, 304 or 416. */
  readonly status: number
  /** What an answer says of the file: its validators, whether it has ranges, which one this is. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Readable
}

/** Range and conditions of an HTTP client, for the guest to judge. */
export interface HttpWish {
  readonly headers: Readonly<Record<string, string>>
  /** Only what is to be said of the file. */
  readonly statOnly: boolean
}

interface WriteWish {
  /** Permission bits; absent: those of the file that is replaced, else 0644. */
  readonly mode?: number | undefined
  /** Conditions of an HTTP client, by lower-case name, for the guest to judge when it replaces the file. */
  readonly headers?: Readonly<Record<string, string>>
}

interface ByteRange {
  readonly offset: number
  /** Absent: to the end. */
  readonly length?: number | undefined
}

/**
 * Opens a file for reading; bytes flow as the reader takes them, and wait while the capsule sleeps. Destroying `body` ends the
 * call.
 * @throws AppError `file_not_found`, `is_a_directory`, `permission_denied`, …
 */
export async function openFile(target: FileTarget, wish: ByteRange | HttpWish): Promise<OpenedFile> {
  const abort = new AbortController()
  try {
    const opened = await target.wake.use(target.capsule, () => openAt(target, wish, abort.signal))
    const bytes = download(target, opened, abort.signal)
    const body = Readable.from(bytes, { objectMode: false, highWaterMark: CHUNK_BYTES })
    body.once('close', () => abort.abort())
    const { length, status, headers } = opened
    return { length, status, headers, body }
  } catch (error) {
    abort.abort()
    throw fromHostError(error)
  }
}

type ReadParts = AsyncIterator<{ readonly part: { readonly case?: string | undefined; readonly value?: unknown } }>

interface Opened extends Omit<OpenedFile, 'body'> {
  readonly size: number
  /** Of the whole file's bytes, the first that follows. */
  readonly offset: number
  readonly parts: ReadParts
}

async function openAt(
  { client, capsule, path, user }: FileTarget,
  wish: ByteRange | HttpWish,
  signal: AbortSignal,
): Promise<Opened> {
  const request = { capsuleId: capsule.id, path, user, ...messageOf(wish) }
  const parts = client.readFile(request, { signal })[Symbol.asyncIterator]()
  const first = await parts.next()
  if (first.done === true || first.value.part.case !== 'stat') {
    throw new AppError('guest_error', 'The guest did not answer with a file.')
  }
  const { size, length, unsized, status, headers } = first.value.part.value
  const start = 'offset' in wish ? wish.offset : /^bytes (\d+)-/.exec(headers['content-range'] ?? '')?.[1]
  return {
    size: Number(size),
    offset: Number(start ?? 0),
    length: unsized ? undefined : Number(length),
    status,
    headers,
    parts,
  }
}

function messageOf(wish: ByteRange | HttpWish) {
  if ('headers' in wish) return { headers: { ...wish.headers }, statOnly: wish.statOnly }
  const { offset, length } = wish
  return { offset: BigInt(offset), ...(length === undefined ? {} : { length: BigInt(length) }) }
}

async function* download(target: FileTarget, opened: Opened, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  let sent = 0
  let refusedAt = -1
  for (let parts: ReadParts | undefined = opened.parts; ; parts = undefined) {
    try {
      if (parts === undefined && sent === opened.length) return
      parts ??= await goOn(target, sent, opened, signal)
      for await (const bytes of chunks(parts)) {
        sent += bytes.length
        yield bytes
      }
      return
    } catch (error) {
      const failure = fromHostError(error)
      if (signal.aborted || failure.code !== 'invalid_state') throw failure
      const { slept } = await target.wake.afterRefusal(target.capsule, { signal, asleep: 'wait' })
      if (slept) continue
      // A slow reader hears of a pause when the capsule runs again already. Twice at the same byte is no pause.
      if (sent === refusedAt) throw failure
      refusedAt = sent
    }
  }
}

/** The bytes that are still to come, of the same version of the file. */
async function goOn(target: FileTarget, sent: number, opened: Opened, signal: AbortSignal): Promise<ReadParts> {
  const { offset, length, size, headers } = opened
  // What has no length may be another one each time it is read.
  if (length === undefined) throw changed()
  const version = headers.etag === undefined ? {} : { 'if-match': headers.etag }
  const range = `bytes=${offset + sent}-${offset + length - 1}`
  try {
    const again = await openAt(target, { headers: { range, ...version }, statOnly: false }, signal)
    if (again.status !== 206 || again.size !== size) throw changed()
    return again.parts
  } catch (error) {
    throw fromHostError(error).code === 'precondition_failed' ? changed() : error
  }
}

function changed(): AppError {
  return new AppError('conflict', 'The file changed while it was read.')
}

async function* chunks(parts: ReadParts): AsyncGenerator<Uint8Array> {
  for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
    const { value } = next.value.part
    if (value instanceof Uint8Array && value.length > 0) yield value
  }
}

/**
 * Writes a file from a stream, as fast as the guest takes it. When `source` fails nothing counts as written.
 * @returns how many bytes were written
 * @throws AppError `precondition_failed`, …
 */
export async function writeFile(target: FileTarget, source: Readable, wish: WriteWish = {}): Promise<number> {
  const upload = new Upload(source)
  try {
    const options = target.signal === undefined ? {} : { signal: target.signal }
    return await target.wake.use(target.capsule, () => send(target, upload, wish), options)
  } finally {
    upload.close()
  }
}

async function send(
  { client, capsule, path, user, signal }: FileTarget,
  upload: Upload,
  { mode, headers = {} }: WriteWish,
): Promise<number> {
  const open = { capsuleId: capsule.id, path, user, headers: { ...headers }, ...(mode === undefined ? {} : { mode }) }
  async function* requests() {
    yield { part: { case: 'open' as const, value: open } }
    for await (const value of upload.chunks()) yield { part: { case: 'chunk' as const, value } }
    yield { part: { case: 'complete' as const, value: true } }
  }
  const abort = new AbortController()
  const either = signal === undefined ? abort.signal : AbortSignal.any([abort.signal, signal])
  try {
    const { bytes } = await client.writeFile(requests(), { signal: either })
    return Number(bytes)
  } catch (error) {
    throw upload.explain(fromHostError(error), path)
  } finally {
    abort.abort()
  }
}

/** The bytes of an upload, for more than one attempt while they are few. */
export class Upload {
  readonly #source: AsyncIterator<unknown>
  #kept: Uint8Array[] = []
  #keptBytes = 0
  /** Chunks that came before those kept. */
  #dropped = 0
  #pulling: Promise<boolean> | undefined
  #sourceError: unknown

  constructor(source: Readable) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** All chunks from the first one that is still there: from the beginning as long as it can be sent again. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let at = this.#dropped; ; at++) {
      if (at === this.#dropped + this.#kept.length && !(await this.#pull())) return
      const chunk = this.#kept[at - this.#dropped]
      if (chunk === undefined) return
      if (!this.#canReplay) this.#drop(at - this.#dropped + 1)
      yield chunk
    }
  }

  /** What a failed attempt means; `invalid_state` only where another one can be made. */
  explain(failure: AppError, path: string): AppError {
    if (this.#sourceError !== undefined) {
      const cause = codingError(this.#sourceError)
      if (AppError.is(cause)) return cause
      return new AppError('invalid_request', 'The upload ended before the file was complete.', { cause })
    }
    if (failure.code !== 'invalid_state' || this.#canReplay) return failure
    const message = `The capsule was paused while ${path} was uploaded; nothing of the upload was kept.`
    return new AppError('upload_interrupted', message, { cause: failure })
  }

  /** Tells the source that nobody reads on. */
  close(): void {
    void this.#source.return?.().catch(() => {})
  }

  get #canReplay(): boolean {
    return this.#dropped === 0 && this.#keptBytes <= REPLAY_BYTES
  }

  /** A failed attempt may still wait for the next chunk when a new one comes to it: both get the same. */
  #pull(): Promise<boolean> {
    this.#pulling ??= this.#next().finally(() => {
      this.#pulling = undefined
    })
    return this.#pulling
  }

  async #next(): Promise<boolean> {
    try {
      const next = await this.#source.next()
      if (next.done === true) return false
      const chunk = bytesOf(next.value)
      this.#kept.push(chunk)
      this.#keptBytes += chunk.length
      return true
    } catch (error) {
      this.#sourceError = error
      throw error
    }
  }

  #drop(count: number): void {
    this.#kept.splice(0, count)
    this.#dropped += count
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
