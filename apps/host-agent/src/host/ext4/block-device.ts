import { type FileHandle, open } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { damaged } from './damage.js'

const PAGE_BYTES = 65_536
/** 8 MiB per disk, whatever its size. */
const PAGES_KEPT = 128

/** Reads out of the cache never wait for anything: this often others get their turn. A few milliseconds of work. */
const READS_PER_TURN = 256

/** What one reading of a disk may cost, so that structures which refer to each other in circles end with an error. */
export interface WorkLimits {
  readonly metadataBlocks: number
  readonly contentBlocks: number
}

/**
 * The blocks of a file system in a file. Blocks that wait in the journal are read from there (`patches`), so the file is
 * never written to.
 */
export class BlockDevice {
  readonly #pages = new Map<number, Buffer>()
  #patches: ReadonlyMap<number, JournalBlock> = new Map()
  #patchedBlocks = new Float64Array(0)
  #reads = 0
  #metadataLeft = Number.POSITIVE_INFINITY
  #contentLeft = Number.POSITIVE_INFINITY

  private constructor(
    readonly path: string,
    readonly sizeBytes: number,
    private readonly file: FileHandle,
    private readonly signal: AbortSignal | undefined,
    /** Known once the superblock was read. */
    public blockSize = 1024,
    public blockCount = 0,
  ) {}

  static async open(path: string, signal: AbortSignal | undefined): Promise<BlockDevice> {
    signal?.throwIfAborted()
    const file = await open(path, 'r')
    try {
      return new BlockDevice(path, (await file.stat()).size, file, signal)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.file.close()
  }

  /** What the superblock says; forgets what was read under another block size. */
  setShape(blockSize: number, blockCount: number): void {
    this.blockSize = blockSize
    this.blockCount = blockCount
    this.#pages.clear()
  }

  /** From now on each block that is read counts, and one too many is an error. */
  setLimits(limits: WorkLimits): void {
    this.#metadataLeft = limits.metadataBlocks
    this.#contentLeft = limits.contentBlocks
  }

  /** From now on these blocks come from the journal. */
  setPatches(patches: ReadonlyMap<number, JournalBlock>): void {
    this.#patches = patches
    this.#patchedBlocks = Float64Array.from(patches.keys()).sort()
    this.#pages.clear()
  }

  /** Whether any of the blocks is newer in the journal than in its place. */
  isPatched(block: number, count: number): boolean {
    let low = 0
    let high = this.#patchedBlocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#patchedBlocks[middle] ?? 0) < block) low = middle + 1
      else high = middle
    }
    return (this.#patchedBlocks[low] ?? Number.POSITIVE_INFINITY) < block + count
  }

  /** Bytes of the file as they are, past journal and cache. */
  async raw(offset: number, length: number): Promise<Buffer> {
    this.signal?.throwIfAborted()
    if (offset < 0 || offset + length > this.sizeBytes) {
      throw damaged(this.path, `byte ${offset + length} lies past its end (${this.sizeBytes} bytes)`)
    }
    const buffer = Buffer.allocUnsafe(length)
    let filled = 0
    while (filled < length) {
      const { bytesRead } = await this.file.read(buffer, filled, length - filled, offset + filled)
      if (bytesRead === 0) throw damaged(this.path, `it ends at byte ${offset + filled}`)
      filled += bytesRead
    }
    return buffer
  }

  /** One block of metadata, cached. The caller must not keep it: a slice holds 64 KiB. */
  async metadata(block: number): Promise<Buffer> {
    this.#check(block, 1)
    this.#metadataLeft -= 1
    if (this.#metadataLeft < 0) throw this.#endless()
    this.#reads += 1
    if (this.#reads % READS_PER_TURN === 0) {
      await nextTurn()
      this.signal?.throwIfAborted()
    }
    const offset = block * this.blockSize
    const number = Math.floor(offset / PAGE_BYTES)
    const page = this.#pages.get(number) ?? (await this.#load(number))
    const start = offset - number * PAGE_BYTES
    return page.subarray(start, start + this.blockSize)
  }

  /** Blocks of file content, not cached. */
  async content(block: number, count: number): Promise<Buffer> {
    this.#check(block, count)
    this.#contentLeft -= count
    if (this.#contentLeft < 0) throw this.#endless()
    const bytes = await this.raw(block * this.blockSize, count * this.blockSize)
    await this.#patch(bytes, block, count)
    return bytes
  }

  async #load(number: number): Promise<Buffer> {
    const offset = number * PAGE_BYTES
    const page = await this.raw(offset, Math.min(PAGE_BYTES, this.sizeBytes - offset))
    await this.#patch(page, offset / this.blockSize, Math.floor(page.length / this.blockSize))
    this.#pages.set(number, page)
    if (this.#pages.size > PAGES_KEPT) this.#evictOldest()
    return page
  }

  #evictOldest(): void {
    for (const oldest of this.#pages.keys()) {
      this.#pages.delete(oldest)
      return
    }
  }

  async #patch(bytes: Buffer, block: number, count: number): Promise<void> {
    if (!this.isPatched(block, count)) return
    for (let index = 0; index < count; index += 1) {
      const source = this.#patches.get(block + index)
      if (source === undefined) continue
      const newer = await this.raw(source.block * this.blockSize, this.blockSize)
      if (source.escaped) newer.writeUInt32BE(JOURNAL_MAGIC, 0)
      newer.copy(bytes, index * this.blockSize)
    }
  }

  #check(block: number, count: number): void {
    if (Number.isInteger(block) && block >= 0 && count >= 0 && block + count <= this.blockCount) return
    throw damaged(this.path, `block ${block} (+${count}) lies outside of its ${this.blockCount} blocks`)
  }

  #endless(): Error {
    return damaged(this.path, 'its structures refer to more blocks than it has')
  }
}

/**
 * First four bytes, big endian, of every block of the journal's own (https://docs.kernel.org/filesystems/ext4/journal.html).
 * A data block that begins with them is journaled with zeros there and marked as escaped.
 */
export const JOURNAL_MAGIC = 0xc03b3998

/** Where the journal keeps a newer version of a block. */
export interface JournalBlock {
  readonly block: number
  /** It begins with the journal's own magic number, which was blanked there. */
  readonly escaped: boolean
}
