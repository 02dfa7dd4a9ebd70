import { BlockDevice } from './block-device.js'
import { damaged } from './damage.js'
import { type DirectoryEntry, parseDirectoryBlock } from './directory.js'
import { extraBytes, GOOD_OLD_BYTES, type Inode, inodeFlag, MAP_BYTES, MAP_OFFSET, parseInode } from './inode.js'
import { readJournal } from './journal.js'
import { type Mapping, mappings } from './mapping.js'
import { descriptorPlace, parseSuperblock, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, type Superblock } from './superblock.js'
import { hasXattrs, INLINE_DATA, readXattrs, type Xattrs } from './xattr.js'

/** Inode of the root directory: `EXT4_ROOT_INO` of the kernel, fixed by the format. */
export const ROOT_INODE = 2
const MAX_SYMLINK_BYTES = 4096
const DESCRIPTOR_TABLE_HIGH = 0x28

const noXattrs: Xattrs = new Map()

/** How a reading is ended; checked at each read of the file. */
export interface Ext4Options {
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads an ext4 file system in a file, without mounting and without writing to it; writes that wait in its journal count. The
 * file may come from an enemy: every contradiction ends in an error, memory stays flat and so does the work, which is bounded by the
 * size of the disk. Disposal closes the file.
 */
export class Ext4 {
  /** Block of each group's inode table, 0 where it was not needed yet. */
  readonly #tables: Float64Array

  private constructor(
    private readonly device: BlockDevice,
    private readonly superblock: Superblock,
  ) {
    this.#tables = new Float64Array(superblock.groupCount)
  }

  /** @throws AppError `snapshot_damaged`; a system error when the file cannot be opened; the signal's reason. */
  static async open(path: string, options: Ext4Options = {}): Promise<Ext4> {
    const device = await BlockDevice.open(path, options.signal)
    try {
      const disk = await Ext4.#read(device)
      if (!disk.superblock.needsRecovery) return disk
      device.setPatches(await readJournal(device, await disk.inode(disk.superblock.journalInode)))
      return await Ext4.#read(device)
    } catch (error) {
      await device.close()
      throw error
    }
  }

  static async #read(device: BlockDevice): Promise<Ext4> {
    if (device.sizeBytes < SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES) throw damaged(device.path, 'it is too short')
    const bytes = await readSuperblock(device)
    const superblock = parseSuperblock(bytes, device.path, device.sizeBytes)
    device.setShape(superblock.blockSize, superblock.blockCount)
    const { blockCount } = superblock
    // Each content block has one owner, hard links share an inode: a sound disk needs a small multiple at most.
    device.setLimits({ metadataBlocks: blockCount * 64 + 2 ** 22, contentBlocks: blockCount * 4 + 2 ** 16 })
    return new Ext4(device, superblock)
  }

  get path(): string {
    return this.device.path
  }

  get blockSize(): number {
    return this.superblock.blockSize
  }

  get inodeCount(): number {
    return this.superblock.inodeCount
  }

  /** @throws AppError `snapshot_damaged` when there is no such inode or it is free. */
  async inode(number: number): Promise<Inode> {
    if (!Number.isInteger(number) || number < 1 || number > this.superblock.inodeCount) throw this.#noInode(number)
    const group = Math.floor((number - 1) / this.superblock.inodesPerGroup)
    const byte = ((number - 1) % this.superblock.inodesPerGroup) * this.superblock.inodeSize
    const block = (await this.#inodeTable(group)) + Math.floor(byte / this.blockSize)
    const start = byte % this.blockSize
    const table = await this.device.metadata(block)
    const inode = parseInode(number, Buffer.from(table.subarray(start, start + this.superblock.inodeSize)))
    if (inode === undefined) throw this.#noInode(number)
    if ((inode.flags & inodeFlag.encrypted) !== 0) throw damaged(this.path, `inode ${number} is encrypted`)
    return inode
  }

  async #inodeTable(group: number): Promise<number> {
    const known = this.#tables[group]
    if (known) return known
    const { block: descriptors, offset } = descriptorPlace(this.superblock, group)
    const bytes = await this.device.metadata(descriptors)
    const high = this.superblock.descriptorSize >= 64 ? bytes.readUInt32LE(offset + DESCRIPTOR_TABLE_HIGH) : 0
    const block = bytes.readUInt32LE(offset + 8) + high * 2 ** 32
    this.#tables[group] = block
    return block
  }

  /** Extended attributes by full name; those that hold content are left out. */
  async xattrs(inode: Inode): Promise<Xattrs> {
    if (!hasXattrs(inode)) return noXattrs
    const all = new Map(await readXattrs(this.device, inode))
    all.delete(INLINE_DATA)
    return all
  }

  /** All but `.` and `..`, in no order. @throws AppError `snapshot_damaged` when it is no directory. */
  async *entries(directory: Inode): AsyncGenerator<DirectoryEntry, void, void> {
    if (directory.kind !== 'directory') throw damaged(this.path, `inode ${directory.number} is no directory`)
    if ((directory.flags & inodeFlag.inlineData) !== 0) {
      yield* await this.#inlineEntries(directory)
      return
    }
    for await (const { physical, count } of mappings(this.device, directory)) {
      for (let index = 0; index < count; index += 1) {
        const block = Buffer.from(await this.device.metadata(physical + index))
        yield* parseDirectoryBlock(block, this.path, directory.number)
      }
    }
  }

  /** Inline, the parent's number comes first; the rest of the 60 bytes and the attribute are two blocks of entries. */
  async #inlineEntries(directory: Inode): Promise<DirectoryEntry[]> {
    const { map, rest } = await this.#inlineParts(directory)
    return [map.subarray(4), rest].flatMap((part) => [...parseDirectoryBlock(part, this.path, directory.number)])
  }

  /** Where a symlink points. */
  async target(symlink: Inode): Promise<Buffer> {
    const { size, flags } = symlink
    if (symlink.kind !== 'symlink') throw damaged(this.path, `inode ${symlink.number} is no symlink`)
    if (size > MAX_SYMLINK_BYTES) throw damaged(this.path, `symlink inode ${symlink.number} is too long`)
    const isFast = size < MAP_BYTES && (flags & inodeFlag.extents) === 0
    if (isFast) return Buffer.from(symlink.bytes.subarray(MAP_OFFSET, MAP_OFFSET + size))
    return await this.read(symlink, 0, size)
  }

  /** Whether the content lies in the inode itself; it has no mappings then. */
  isInline(inode: Inode): boolean {
    return this.superblock.hasInlineData && (inode.flags & inodeFlag.inlineData) !== 0
  }

  /** Whether the inode alone says where the content is, so that equal inodes have equal mappings. */
  isMappedByInode(inode: Inode): boolean {
    const depth = inode.bytes.readUInt16LE(MAP_OFFSET + 6)
    return this.isInline(inode) || ((inode.flags & inodeFlag.extents) !== 0 && depth === 0)
  }

  /** Where a file's content is; see `Mapping`. Empty for inline content. */
  mappings(inode: Inode): AsyncGenerator<Mapping, void, void> {
    return this.isInline(inode) ? nothing() : mappings(this.device, inode)
  }

  /** Whole blocks of content, as `mappings` names them. */
  async blocks(physical: number, count: number): Promise<Buffer> {
    return await this.device.content(physical, count)
  }

  /** Whether the blocks lie where they are read from: none of them waits in the journal. */
  isInPlace(physical: number, count: number): boolean {
    return !this.device.isPatched(physical, count)
  }

  /** Bytes of a file; what lies in holes or past the end of what was written is zero. The caller bounds `length`. */
  async read(inode: Inode, offset: number, length: number): Promise<Buffer> {
    const wanted = Math.max(0, Math.min(length, inode.size - offset))
    const result = Buffer.alloc(wanted)
    if (this.isInline(inode)) {
      const { map, rest } = await this.#inlineParts(inode)
      Buffer.concat([map, rest]).copy(result, 0, offset, offset + wanted)
      return result
    }
    for await (const { logical, count, physical } of this.mappings(inode)) {
      const start = Math.max(offset, logical * this.blockSize)
      const end = Math.min(offset + wanted, (logical + count) * this.blockSize)
      if (logical * this.blockSize >= offset + wanted) break
      if (start >= end) continue
      const first = Math.floor(start / this.blockSize)
      const blocks = Math.ceil(end / this.blockSize) - first
      const bytes = await this.blocks(physical + first - logical, blocks)
      bytes.copy(result, start - offset, start - first * this.blockSize, end - first * this.blockSize)
    }
    return result
  }

  async #inlineParts(inode: Inode): Promise<{ map: Buffer; rest: Buffer }> {
    const map = inode.bytes.subarray(MAP_OFFSET, MAP_OFFSET + MAP_BYTES)
    const hasMore = inode.bytes.length > GOOD_OLD_BYTES + extraBytes(inode.bytes)
    const rest = hasMore ? (await readXattrs(this.device, inode)).get(INLINE_DATA) : undefined
    return { map, rest: rest ?? Buffer.alloc(0) }
  }

  async close(): Promise<void> {
    await this.device.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #noInode(number: number): Error {
    return damaged(this.path, `it refers to inode ${number}, which does not exist`)
  }
}

async function readSuperblock(device: BlockDevice): Promise<Buffer> {
  if (device.blockCount === 0) return await device.raw(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
  // Through the journal this time, which may hold a newer one.
  const block = Math.floor(SUPERBLOCK_OFFSET / device.blockSize)
  const start = SUPERBLOCK_OFFSET % device.blockSize
  return Buffer.from((await device.metadata(block)).subarray(start, start + SUPERBLOCK_BYTES))
}

async function* nothing(): AsyncGenerator<never, void, void> {}
