import { type BlockDevice, JOURNAL_MAGIC, type JournalBlock } from './block-device.js'
import { damaged } from './damage.js'
import type { Inode } from './inode.js'
import { mappings } from './mapping.js'

/** https://docs.kernel.org/filesystems/ext4/journal.html; all numbers of a journal are big endian. */
const blockType = { descriptor: 1, commit: 2, superV1: 3, superV2: 4, revoke: 5 } as const
const feature = { bits64: 0x2, csumV2: 0x8, csumV3: 0x10, fastCommit: 0x20 } as const
const KNOWN_FEATURES = 0x1 | feature.bits64 | 0x4 | feature.csumV2 | feature.csumV3
const tagFlag = { escaped: 1, sameUuid: 2, last: 8 } as const
const HEADER_BYTES = 12
const UUID_BYTES = 16
const CHECKSUM_BYTES = 4
/** 1 GiB of 4 KiB blocks; ours have 16 MiB, and mkfs never makes one larger. */
const MAX_BLOCKS = 262_144

interface JournalShape {
  readonly length: number
  readonly first: number
  readonly sequence: number
  readonly start: number
  readonly features: number
}

/**
 * The blocks that a mount would write to their place before anything else: those of every transaction that reached its commit
 * block, the newest version of each, without those that a later transaction revoked. Nothing is written.
 *
 * Checksums are not looked at: a stale block of the circle is told by its sequence number, and whoever owns the disk can
 * forge them anyway.
 * @throws AppError `snapshot_damaged`
 */
export async function readJournal(device: BlockDevice, inode: Inode): Promise<ReadonlyMap<number, JournalBlock>> {
  const blocks = await journalBlocks(device, inode)
  const shape = await readShape(device, blocks)
  if (shape.start === 0) return new Map()
  return await new JournalReader(device, blocks, shape).read()
}

/** Place on the disk of each block of the journal. */
async function journalBlocks(device: BlockDevice, inode: Inode): Promise<Float64Array> {
  const count = Math.ceil(inode.size / device.blockSize)
  if (count > MAX_BLOCKS) throw damaged(device.path, 'its journal is larger than any that mkfs makes')
  const places = new Float64Array(count).fill(-1)
  for await (const { logical, count: length, physical } of mappings(device, inode)) {
    for (let index = 0; index < length; index += 1) places[logical + index] = physical + index
  }
  return places
}

async function readShape(device: BlockDevice, blocks: Float64Array): Promise<JournalShape> {
  const bytes = await readPlace(device, blocks, 0)
  const type = bytes.readUInt32BE(4)
  const isSuper = type === blockType.superV1 || type === blockType.superV2
  if (bytes.readUInt32BE(0) !== JOURNAL_MAGIC || !isSuper) throw damaged(device.path, 'its journal has no superblock')
  const features = type === blockType.superV2 ? bytes.readUInt32BE(0x28) : 0
  const unknown = (features & ~KNOWN_FEATURES) >>> 0
  if (unknown !== 0) throw damaged(device.path, `its journal cannot be read here (features 0x${unknown.toString(16)})`)
  const shape: JournalShape = {
    length: bytes.readUInt32BE(0x10),
    first: bytes.readUInt32BE(0x14),
    sequence: bytes.readUInt32BE(0x18),
    start: bytes.readUInt32BE(0x1c),
    features,
  }
  const isSound = shape.first >= 1 && shape.first < shape.length && shape.length <= blocks.length
  const blockSize = bytes.readUInt32BE(0x0c)
  if (!isSound || shape.start >= shape.length || blockSize !== device.blockSize) {
    throw damaged(device.path, 'its journal is out of range')
  }
  return shape
}

async function readPlace(device: BlockDevice, blocks: Float64Array, index: number): Promise<Buffer> {
  const place = blocks[index] ?? -1
  if (place < 0) throw damaged(device.path, 'its journal has a hole')
  return await device.raw(place * device.blockSize, device.blockSize)
}

interface LoggedBlock extends JournalBlock {
  /** Counted from the first transaction read, so that it cannot wrap. */
  readonly age: number
}

class JournalReader {
  readonly #committed = new Map<number, LoggedBlock>()
  /** Of the transaction being read; counts once its commit block is found. */
  #logged = new Map<number, LoggedBlock>()
  #revoked = new Map<number, number>()
  readonly #committedRevokes = new Map<number, number>()
  #position: number
  #walked = 0
  #age = 0

  constructor(
    private readonly device: BlockDevice,
    private readonly blocks: Float64Array,
    private readonly shape: JournalShape,
  ) {
    this.#position = shape.start
  }

  async read(): Promise<ReadonlyMap<number, JournalBlock>> {
    while (this.#walked < this.shape.length) {
      const bytes = await readPlace(this.device, this.blocks, this.#position)
      if (bytes.readUInt32BE(0) !== JOURNAL_MAGIC) break
      if (bytes.readUInt32BE(8) !== (this.shape.sequence + this.#age) >>> 0) break
      this.#step()
      const type = bytes.readUInt32BE(4)
      if (type === blockType.descriptor) this.#descriptor(bytes)
      else if (type === blockType.revoke) this.#revoke(bytes)
      else if (type === blockType.commit) this.#commit()
      else break
    }
    for (const [block, age] of this.#committedRevokes) {
      const logged = this.#committed.get(block)
      if (logged !== undefined && logged.age <= age) this.#committed.delete(block)
    }
    return this.#committed
  }

  #descriptor(bytes: Buffer): void {
    const hasTail = (this.shape.features & (feature.csumV2 | feature.csumV3)) !== 0
    const end = bytes.length - (hasTail ? CHECKSUM_BYTES : 0)
    const tagBytes = this.#tagBytes()
    for (let at = HEADER_BYTES; at + tagBytes <= end; ) {
      const tag = this.#tag(bytes, at)
      const place = this.blocks[this.#position] ?? -1
      if (place < 0) throw damaged(this.device.path, 'its journal has a hole')
      const escaped = (tag.flags & tagFlag.escaped) !== 0
      this.#logged.set(tag.block, { block: place, escaped, age: this.#age })
      this.#step()
      if ((tag.flags & tagFlag.last) !== 0) return
      at += tagBytes + ((tag.flags & tagFlag.sameUuid) === 0 ? UUID_BYTES : 0)
    }
  }

  #tag(bytes: Buffer, at: number): { block: number; flags: number } {
    const is64 = (this.shape.features & feature.bits64) !== 0
    const isV3 = (this.shape.features & feature.csumV3) !== 0
    const flags = isV3 ? bytes.readUInt32BE(at + 4) : bytes.readUInt16BE(at + 6)
    const high = is64 ? bytes.readUInt32BE(at + 8) : 0
    return { block: bytes.readUInt32BE(at) + high * 2 ** 32, flags }
  }

  #tagBytes(): number {
    const { features } = this.shape
    if ((features & feature.csumV3) !== 0) return 16
    return 8 + ((features & feature.csumV2) === 0 ? 0 : 2) + ((features & feature.bits64) === 0 ? 0 : 4)
  }

  #revoke(bytes: Buffer): void {
    const end = Math.min(bytes.readUInt32BE(HEADER_BYTES), bytes.length)
    const width = (this.shape.features & feature.bits64) === 0 ? 4 : 8
    for (let at = HEADER_BYTES + 4; at + width <= end; at += width) {
      const block = width === 4 ? bytes.readUInt32BE(at) : Number(bytes.readBigUInt64BE(at))
      this.#revoked.set(block, this.#age)
    }
  }

  #commit(): void {
    for (const [block, logged] of this.#logged) this.#committed.set(block, logged)
    for (const [block, age] of this.#revoked) this.#committedRevokes.set(block, age)
    this.#logged = new Map()
    this.#revoked = new Map()
    this.#age += 1
  }

  /** To the next block of the circle. */
  #step(): void {
    this.#walked += 1
    this.#position += 1
    if (this.#position >= this.shape.length) this.#position = this.shape.first
  }
}
