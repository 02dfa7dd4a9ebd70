import { read, write, writev } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { promisify } from 'node:util'
import { isErrno } from '@wrenn/base'

// Node's own file streams close their descriptor whenever they are destroyed, whatever `autoClose` says, and a descriptor closed
// twice may by then be somebody else's. These copies only use a descriptor that the caller closes when they have settled.
const readAsync = promisify(read)
const writeAsync = promisify(write)
const writevAsync = promisify(writev)

const READ_CHUNK_BYTES = 256 * 1024
/** As much may wait for the disk before the source has to wait too. */
const WRITE_BUFFER_BYTES = 1024 * 1024
/** The kernel takes at most 1,024 pieces per call. */
const MAX_PIECES = 1_000

/**
 * Reads on from where the descriptor stands, as `read(2)` does: files of `/proc` are only whole when read in order, and not all
 * can be read elsewhere.
 * @returns how many bytes; 0 at the end, and where there is nothing more now (a kernel log)
 */
export async function readHere(fd: number, buffer: Buffer, offset: number, length: number): Promise<number> {
  try {
    return (await readAsync(fd, buffer, offset, length, null)).bytesRead
  } catch (error) {
    if (isErrno(error, 'EAGAIN')) return 0
    throw error
  }
}

/** What copying from a file needs to know at each step. */
export interface CopyOptions {
  /** When true, the bytes that come next are not those that were promised; copying ends. */
  readonly isStale: () => boolean
}

/**
 * Copies the bytes [start, end) of an open file, as fast as `sink` takes it; `sink` is not ended. Stops when `sink` is destroyed.
 * @returns false when the file had fewer bytes, or became stale
 */
export async function copyPart(
  fd: number,
  { start, end }: { readonly start: number; readonly end: number },
  sink: Writable,
  options: CopyOptions,
): Promise<boolean> {
  let position = start
  const readNext = async (buffer: Buffer): Promise<number> => {
    const { bytesRead } = await readAsync(fd, buffer, 0, Math.min(buffer.length, end - position), position)
    position += bytesRead
    return bytesRead
  }
  await copy(readNext, sink, () => position >= end, options)
  return sink.destroyed || (position >= end && !options.isStale())
}

/** Copies what follows where the descriptor stands, to the file's end. @returns false when it became stale */
export async function copyRest(fd: number, sink: Writable, options: CopyOptions): Promise<boolean> {
  await copy(
    (buffer) => readHere(fd, buffer, 0, buffer.length),
    sink,
    () => false,
    options,
  )
  return sink.destroyed || !options.isStale()
}

async function copy(
  readNext: (buffer: Buffer) => Promise<number>,
  sink: Writable,
  isDone: () => boolean,
  { isStale }: CopyOptions,
): Promise<void> {
  const buffers = new BufferPair(sink)
  while (!isDone() && !sink.destroyed) {
    const buffer = await buffers.take()
    if (buffer === undefined) return
    const bytesRead = await readNext(buffer)
    if (bytesRead === 0 || isStale()) return
    sink.write(buffer.subarray(0, bytesRead), () => buffers.release(buffer))
  }
}

/**
 * Two buffers that take turns: one is filled while the other is sent. New ones for each chunk would cost a page fault for every
 * 4 KiB, which an emulated CPU feels.
 */
class BufferPair {
  readonly #free: Buffer[] = []
  readonly #sink: Writable
  #made = 0
  #wake: (() => void) | undefined

  constructor(sink: Writable) {
    this.#sink = sink
    sink.once('close', () => this.#wake?.())
  }

  /** A buffer that nobody reads from any more; `undefined` once the sink is destroyed. */
  async take(): Promise<Buffer | undefined> {
    if (this.#free.length === 0 && this.#made < 2) {
      this.#made++
      return Buffer.allocUnsafeSlow(READ_CHUNK_BYTES)
    }
    while (this.#free.length === 0 && !this.#sink.destroyed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#sink.destroyed ? undefined : this.#free.pop()
  }

  release(buffer: Buffer): void {
    this.#free.push(buffer)
    this.#wake?.()
  }
}

/** Where received bytes go: to memory while they are few, to a file when there are more. */
export interface ReceiveTarget {
  readonly maxMemoryBytes: number
  /** Called at most once. The descriptor stays the caller's. */
  readonly openFile: () => number
}

/**
 * Takes in all of `source`. When it rejects, `source` is paused but not destroyed, and no write is under way.
 * @returns what stayed in memory; `undefined` when all of it is in the file
 * @throws the source's error, the file system's error, or one with code `ERR_STREAM_PREMATURE_CLOSE`
 */
export function receive(source: Readable, target: ReceiveTarget): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => new Reception(source, target, resolve, reject))
}

class Reception {
  readonly #source: Readable
  readonly #target: ReceiveTarget
  readonly #resolve: (inMemory: Buffer | undefined) => void
  readonly #reject: (error: unknown) => void
  #fd: number | undefined
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #isWriting = false
  #hasEnded = false
  #failure: unknown

  constructor(
    source: Readable,
    target: ReceiveTarget,
    resolve: (inMemory: Buffer | undefined) => void,
    reject: (error: unknown) => void,
  ) {
    this.#source = source
    this.#target = target
    this.#resolve = resolve
    this.#reject = reject
    source.on('error', this.#onError).once('end', this.#onEnd).once('close', this.#onClose).on('data', this.#onData)
    if (source.errored) this.#fail(source.errored)
    else if (source.destroyed && !source.readableEnded) this.#onClose()
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#waiting.push(chunk)
    this.#waitingBytes += chunk.length
    if (this.#waitingBytes > WRITE_BUFFER_BYTES) this.#source.pause()
    void this.#write()
  }

  readonly #onEnd = (): void => {
    this.#hasEnded = true
    void this.#write()
  }

  readonly #onError = (error: unknown): void => this.#fail(error)

  readonly #onClose = (): void => {
    if (this.#hasEnded) return
    this.#fail(Object.assign(new Error('The source ended early'), { code: 'ERR_STREAM_PREMATURE_CLOSE' }))
  }

  #fail(error: unknown): void {
    this.#failure ??= error
    this.#detach()
    void this.#write()
  }

  #detach(): void {
    this.#source.off('end', this.#onEnd).off('close', this.#onClose).off('data', this.#onData).pause()
  }

  async #write(): Promise<void> {
    if (this.#isWriting) return
    this.#isWriting = true
    while (this.#waiting.length > 0 && this.#failure === undefined && this.#isForFile) {
      try {
        this.#fd ??= this.#target.openFile()
        await this.#writeSome(this.#fd)
      } catch (error) {
        this.#fail(error)
      }
    }
    this.#isWriting = false
    if (this.#failure !== undefined) this.#reject(this.#failure)
    else if (this.#hasEnded) this.#resolve(this.#fd === undefined ? Buffer.concat(this.#waiting) : undefined)
  }

  get #isForFile(): boolean {
    return this.#fd !== undefined || this.#waitingBytes > this.#target.maxMemoryBytes
  }

  async #writeSome(fd: number): Promise<void> {
    const pieces = this.#waiting.splice(0, MAX_PIECES)
    const wanted = pieces.reduce((sum, piece) => sum + piece.length, 0)
    for (let rest = pieces; rest.length > 0; ) rest = remainder(rest, (await writevAsync(fd, rest)).bytesWritten)
    this.#waitingBytes -= wanted
    if (this.#waitingBytes <= WRITE_BUFFER_BYTES / 2 && this.#failure === undefined) this.#source.resume()
  }
}

/** What is left of `pieces` behind the first `written` bytes: the kernel may take fewer than asked, at a full disk for one. */
function remainder(pieces: readonly Buffer[], written: number): Buffer[] {
  let left = written
  return pieces.flatMap((piece) => {
    const skipped = Math.min(left, piece.length)
    left -= skipped
    return skipped === piece.length ? [] : [piece.subarray(skipped)]
  })
}

/** All bytes of a file to come: in memory, or in a file that is open for reading. */
export type Content = Buffer | { readonly fd: number; readonly sizeBytes: number }

/** Bytes of a received content, wherever it waits for its place. */
export function sizeOf(content: Content): number {
  return Buffer.isBuffer(content) ? content.length : content.sizeBytes
}

/** Writes the bytes [start, end) of `content` to the same place of an open file. */
export async function writePart(
  fd: number,
  content: Content,
  { start, end }: { readonly start: number; readonly end: number },
): Promise<void> {
  if (Buffer.isBuffer(content)) return await writeAll(fd, content.subarray(start, end), start)
  const buffer = Buffer.allocUnsafeSlow(Math.min(WRITE_BUFFER_BYTES, Math.max(0, end - start)))
  for (let position = start; position < end; ) {
    const { bytesRead } = await readAsync(content.fd, buffer, 0, Math.min(buffer.length, end - position), position)
    if (bytesRead === 0) throw new Error('the received file is shorter than what was received')
    await writeAll(fd, buffer.subarray(0, bytesRead), position)
    position += bytesRead
  }
}

/** In one piece where the kernel takes it: a file of `/proc` or `/sys` takes each write for a whole value. */
async function writeAll(fd: number, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += await writeSome(fd, bytes.subarray(done), position + done)
}

/** Some of the kernel's files know no places (`ESPIPE`); what is written to them begins where the descriptor stands, at 0. */
async function writeSome(fd: number, bytes: Buffer, position: number): Promise<number> {
  try {
    return (await writeAsync(fd, bytes, 0, bytes.length, position)).bytesWritten
  } catch (error) {
    if (!isErrno(error, 'ESPIPE') || position !== 0) throw error
    return (await writeAsync(fd, bytes, 0, bytes.length, null)).bytesWritten
  }
}
