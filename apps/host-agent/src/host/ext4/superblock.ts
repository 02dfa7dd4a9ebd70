import { damaged } from './damage.js'

/** Of the first copy, in bytes: what boots from the disk has the first KiB. */
export const SUPERBLOCK_OFFSET = 1024
/** Length, whatever the block size. */
export const SUPERBLOCK_BYTES = 1024

/** https://docs.kernel.org/filesystems/ext4/super.html */
export interface Superblock {
  readonly blockSize: number
  readonly blockCount: number
  readonly inodeCount: number
  readonly inodeSize: number
  readonly inodesPerGroup: number
  readonly blocksPerGroup: number
  readonly firstDataBlock: number
  readonly descriptorSize: number
  readonly groupCount: number
  /** First group whose descriptors are kept beside it instead of at the front; `undefined` without meta_bg. */
  readonly firstMetaGroup: number | undefined
  readonly sparseSuper: boolean
  readonly hasInlineData: boolean
  /** The journal holds writes that are not yet in their place. */
  readonly needsRecovery: boolean
  readonly journalInode: number
}

const incompat = {
  filetype: 0x2,
  recover: 0x4,
  metaBg: 0x10,
  extents: 0x40,
  bits64: 0x80,
  mmp: 0x100,
  flexBg: 0x200,
  csumSeed: 0x2000,
  largeDir: 0x4000,
  inlineData: 0x8000,
} as const
const KNOWN_INCOMPAT = Object.values(incompat).reduce((all, bit) => all | bit, 0)
const COMPAT_JOURNAL = 0x4
const RO_COMPAT_SPARSE_SUPER = 0x1
/** Largest that Linux knows; also bounds every read of one block. */
const MAX_LOG_BLOCK_SIZE = 6
/** Least of mkfs; bounds the number of groups. */
const MIN_BLOCKS_PER_GROUP = 256

/** @throws AppError `snapshot_damaged` for what is no ext4, contradicts itself or needs features that are not read here. */
export function parseSuperblock(bytes: Buffer, path: string, fileBytes: number): Superblock {
  const u16 = (at: number): number => bytes.readUInt16LE(at)
  const u32 = (at: number): number => bytes.readUInt32LE(at)
  if (u16(0x38) !== 0xef53) throw damaged(path, 'it has no ext4 superblock')
  const features = u32(0x60)
  const unknown = (features & ~KNOWN_INCOMPAT) >>> 0
  if (unknown !== 0) throw damaged(path, `it uses ext4 features that cannot be read here (0x${unknown.toString(16)})`)
  if (u32(0x18) > MAX_LOG_BLOCK_SIZE) throw damaged(path, `its block size is out of range`)
  const blockSize = 1024 << u32(0x18)
  const has64 = (features & incompat.bits64) !== 0
  const blockCount = u32(0x04) + (has64 ? u32(0x150) * 2 ** 32 : 0)
  const blocksPerGroup = u32(0x20)
  const firstDataBlock = u32(0x14)
  const superblock: Superblock = {
    blockSize,
    blockCount,
    inodeCount: u32(0x00),
    inodeSize: u32(0x4c) === 0 ? 128 : u16(0x58),
    inodesPerGroup: u32(0x28),
    blocksPerGroup,
    firstDataBlock,
    descriptorSize: has64 ? u16(0xfe) : 32,
    groupCount: Math.ceil((blockCount - firstDataBlock) / blocksPerGroup),
    firstMetaGroup: (features & incompat.metaBg) === 0 ? undefined : u32(0x104),
    sparseSuper: (u32(0x64) & RO_COMPAT_SPARSE_SUPER) !== 0,
    hasInlineData: (features & incompat.inlineData) !== 0,
    needsRecovery: (features & incompat.recover) !== 0 && (u32(0x5c) & COMPAT_JOURNAL) !== 0,
    journalInode: u32(0xe0),
  }
  const problem = inconsistency(superblock, fileBytes)
  if (problem !== undefined) throw damaged(path, problem)
  return superblock
}

function inconsistency(superblock: Superblock, fileBytes: number): string | undefined {
  const { blockSize, blockCount, inodeCount, inodeSize, inodesPerGroup, blocksPerGroup, groupCount } = superblock
  const isPowerOf2 = (value: number): boolean => value > 0 && (value & (value - 1)) === 0
  if (blockCount * blockSize > fileBytes) return `the file has ${fileBytes} of its ${blockCount * blockSize} bytes`
  if (blocksPerGroup < MIN_BLOCKS_PER_GROUP || blocksPerGroup > blockSize * 8 * 16)
    return 'its block groups are out of range'
  if (inodeSize < 128 || inodeSize > blockSize || !isPowerOf2(inodeSize)) return 'its inode size is out of range'
  if (inodesPerGroup === 0 || inodesPerGroup > blockSize * 8) return 'its inodes per group are out of range'
  if (superblock.firstDataBlock > 1 || groupCount < 1) return 'its first block is out of range'
  if (inodeCount > groupCount * inodesPerGroup) return 'it counts more inodes than its groups have'
  if (superblock.descriptorSize < 32 || superblock.descriptorSize > blockSize) return 'its descriptors are out of range'
  if (!isPowerOf2(superblock.descriptorSize)) return 'its descriptors are out of range'
  return undefined
}

/** Byte address of a group's descriptor, as block and offset. */
export function descriptorPlace(superblock: Superblock, group: number): { block: number; offset: number } {
  const perBlock = superblock.blockSize / superblock.descriptorSize
  const index = Math.floor(group / perBlock)
  const offset = (group % perBlock) * superblock.descriptorSize
  if (superblock.firstMetaGroup === undefined || index < superblock.firstMetaGroup) {
    return { block: superblock.firstDataBlock + 1 + index, offset }
  }
  const first = index * perBlock
  const afterSuper = hasSuperblock(superblock, first) ? 1 : 0
  return { block: superblock.firstDataBlock + first * superblock.blocksPerGroup + afterSuper, offset }
}

function hasSuperblock({ sparseSuper }: Superblock, group: number): boolean {
  if (!sparseSuper || group <= 1) return true
  return [3, 5, 7].some((base) => isPowerOf(group, base))
}

function isPowerOf(value: number, base: number): boolean {
  let power = base
  while (power < value) power *= base
  return power === value
}
