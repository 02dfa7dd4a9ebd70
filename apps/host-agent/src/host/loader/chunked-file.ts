import type { FileHandle } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { isErrno } from '@wrenn/base'
import type { StoredChunk } from '@wrenn/object-store'
import type { ServedFile } from './fuse-server.js'
import type { AttributeChange, FileAttributes, Range } from './fuse-wire.js'

const FULL_DISK_MS = 120_000
const FULL_DISK_PAUSE_MS = 500

/** Whence chunks come: `StoredFile` of the object store. */
export interface ChunkOrigin {
  readonly sizeBytes: number
  readonly chunkBytes: number
  /** Of chunks that hold something, ascending; all else is zeros. */
  readonly places: readonly number[]
  chunk(place: number, signal: AbortSignal): Promise<Pick<StoredChunk, 'plain'>>
}

interface ChunkedFileOptions {
  readonly handle: FileHandle
  readonly origin: ChunkOrigin
  /** Makes a hole of the file. */
  readonly punch: (range: Range) => Promise<void>
  /** Of a chunk that somebody reads, once each, in that order. */
  readonly onRead: (place: number) => void
  /** What fails for good: nothing of the file is to be believed any more. */
  readonly onFailure: (error: unknown) => void
  readonly signal: AbortSignal
}

/**
 * A sparse file that fills itself: what is not there yet comes from the origin when it is read, or changed in part. Bytes are in the file
 * before a chunk counts as there, and each chunk is asked for once.
 */
export class ChunkedFile implements ServedFile {
  readonly #options: ChunkedFileOptions
  readonly #absent: Set<number>
  readonly #coming = new Map<number, Promise<void>>()
  readonly #read = new Set<number>()

  constructor(options: ChunkedFileOptions) {
    this.#options = options
    this.#absent = new Set(options.origin.places)
  }

  get isWhole(): boolean {
    return this.#absent.size === 0
  }

  isAbsent(place: number): boolean {
    return this.#absent.has(place)
  }

  /** Waits until the chunk is in the file. @throws the failure that `onFailure` is told */
  async need(place: number): Promise<void> {
    if (!this.#absent.has(place)) return
    const coming = this.#coming.get(place) ?? this.#bring(place)
    this.#coming.set(place, coming)
    await coming
  }

  async attributes(): Promise<FileAttributes> {
    const { size, blocks, mode, uid, gid, mtimeMs } = await this.#options.handle.stat()
    return { sizeBytes: size, blocks, mode, uid, gid, mtimeMs }
  }

  async change({ uid, gid, mode, sizeBytes }: AttributeChange): Promise<void> {
    const { handle, origin } = this.#options
    if (sizeBytes !== undefined && sizeBytes !== origin.sizeBytes) throw new Error('the size of memory never changes')
    if (uid !== undefined || gid !== undefined) {
      const now = await handle.stat()
      await handle.chown(uid ?? now.uid, gid ?? now.gid)
    }
    if (mode !== undefined) await handle.chmod(mode & 0o7777)
  }

  async read({ offset, length }: Range): Promise<Buffer> {
    const places = this.#placesOf({ offset, length })
    for (const place of places) this.#note(place)
    await this.#needAll(places)
    const buffer = Buffer.allocUnsafe(length)
    let filled = 0
    while (filled < length) {
      const { bytesRead } = await this.#ours(
        this.#options.handle.read(buffer, filled, length - filled, offset + filled),
      )
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return buffer.subarray(0, filled)
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    await this.#needAll(this.#placesOf({ offset, length: bytes.length }))
    await this.#ours(this.#put(bytes, offset))
  }

  /** What is punched as a whole is not fetched first. */
  async punch(range: Range): Promise<void> {
    const { chunkBytes } = this.#options.origin
    const places = this.#placesOf(range)
    const isCovered = (place: number): boolean =>
      place * chunkBytes >= range.offset && (place + 1) * chunkBytes <= range.offset + range.length
    // While it waits, others may begin to come: their bytes would be put over the hole, and over what is written there since.
    const waited = (): number[] =>
      places.filter((place) => this.#absent.has(place) && (!isCovered(place) || this.#coming.has(place)))
    for (let rest = waited(); rest.length > 0; rest = waited()) await this.#needAll(rest)
    for (const place of places) this.#absent.delete(place)
    await this.#ours(this.#options.punch(range))
  }

  async sync(): Promise<void> {
    await this.#ours(this.#options.handle.datasync())
  }

  #placesOf({ offset, length }: Range): number[] {
    const { chunkBytes } = this.#options.origin
    const first = Math.floor(offset / chunkBytes)
    const last = Math.floor((offset + Math.max(length, 1) - 1) / chunkBytes)
    return Array.from({ length: last - first + 1 }, (_, at) => first + at)
  }

  async #needAll(places: readonly number[]): Promise<void> {
    const absent = places.filter((place) => this.#absent.has(place))
    if (absent.length > 0) await Promise.all(absent.map((place) => this.need(place)))
  }

  #note(place: number): void {
    if (this.#read.has(place)) return
    this.#read.add(place)
    this.#options.onRead(place)
  }

  async #bring(place: number): Promise<void> {
    const { origin, signal } = this.#options
    try {
      const { plain } = await this.#ours(origin.chunk(place, signal))
      await this.#ours(this.#put(plain, place * origin.chunkBytes))
      this.#absent.delete(place)
    } finally {
      this.#coming.delete(place)
    }
  }

  /** While the disk is full the guest stands still: its host pauses capsules then, which makes room. */
  async #put(bytes: Buffer, offset: number): Promise<void> {
    const { handle, signal } = this.#options
    const deadline = performance.now() + FULL_DISK_MS
    for (let written = 0; written < bytes.length; ) {
      try {
        written += (await handle.write(bytes, written, bytes.length - written, offset + written)).bytesWritten
      } catch (error) {
        if (!isErrno(error, 'ENOSPC', 'EDQUOT') || performance.now() > deadline) throw error
        await delay(FULL_DISK_PAUSE_MS, undefined, { signal })
      }
    }
  }

  async #ours<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      this.#options.onFailure(error)
      throw error
    }
  }
}
