import { read, writev } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { promisify } from 'node:util'

// Node's own file streams close their descriptor whenever they are destroyed, whatever `autoClose` says, and a descriptor closed
// twice may by then be somebody else's. These copies only use a descriptor that the caller closes when they have settled.
const readAsync = promisify(read)
const writevAsync = promisify(writev)

const READ_CHUNK_BYTES = 256 * 1024
/** As much may wait for the disk before the source has to wait too. */
const WRITE_BUFFER_BYTES = 1024 * 1024
/** The kernel takes at most 1,024 pieces per call. */
const MAX_PIECES = 1_000

/** The bytes [start, end] of a file; without `end` what there is. */
export interface FilePart {
  readonly start: number
  readonly end?: number
}

/**
 * Copies from an open file, as fast as `sink` takes it; `sink` is not ended. Stops when `sink` is destroyed.
 * @returns false when the file had fewer bytes than the part
 */
export async function copyFromFile(fd: number, part: FilePart, sink: Writable): Promise<boolean> {
  const end = part.end === undefined ? Number.POSITIVE_INFINITY : part.end + 1
  const buffers = new BufferPair(sink)
  let position = part.start
  while (position < end && !sink.destroyed) {
    const buffer = await buffers.take()
    if (buffer === undefined) return true
    const { bytesRead } = await readAsync(fd, buffer, 0, Math.min(buffer.length, end - position), position)
    if (bytesRead === 0) return part.end === undefined
    position += bytesRead
    sink.write(buffer.subarray(0, bytesRead), () => buffers.release(buffer))
  }
  return true
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

/**
 * Copies all of `source` to an open file. When it rejects, `source` is paused but not destroyed, and no write is under way.
 * @throws the source's error, the file system's error, or one with code `ERR_STREAM_PREMATURE_CLOSE`
 */
export function copyToFile(source: Readable, fd: number): Promise<void> {
  return new Promise((resolve, reject) => new FileCopy(source, fd, resolve, reject))
}

class FileCopy {
  readonly #source: Readable
  readonly #fd: number
  readonly #resolve: () => void
  readonly #reject: (error: unknown) => void
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #isWriting = false
  #hasEnded = false
  #failure: unknown

  constructor(source: Readable, fd: number, resolve: () => void, reject: (error: unknown) => void) {
    this.#source = source
    this.#fd = fd
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
    while (this.#waiting.length > 0 && this.#failure === undefined) {
      try {
        await this.#writeSome()
      } catch (error) {
        this.#fail(error)
      }
    }
    this.#isWriting = false
    if (this.#failure !== undefined) this.#reject(this.#failure)
    else if (this.#hasEnded) this.#resolve()
  }

  async #writeSome(): Promise<void> {
    const pieces = this.#waiting.splice(0, MAX_PIECES)
    const wanted = pieces.reduce((sum, piece) => sum + piece.length, 0)
    for (let rest = pieces; rest.length > 0; ) rest = remainder(rest, (await writevAsync(this.#fd, rest)).bytesWritten)
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
