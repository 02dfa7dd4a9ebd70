import type { BlockDevice } from './block-device.js'
import { damaged } from './damage.js'
import { extraBytes, GOOD_OLD_BYTES, type Inode } from './inode.js'

/** Extended attributes by full name (`trusted.overlay.opaque`), bytes of the name as latin1. */
export type Xattrs = ReadonlyMap<string, Buffer>

const MAGIC = 0xea020000
const BLOCK_HEADER_BYTES = 32
const ENTRY_BYTES = 16
/** https://docs.kernel.org/filesystems/ext4/attributes.html */
const prefixes = new Map<number, string>([
  [0, ''],
  [1, 'user.'],
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
  [7, 'system.'],
  [8, 'system.richacl'],
])

/** Name under which ext4 keeps what does not fit of inline content; no attribute for a user. */
export const INLINE_DATA = 'system.data'

/** Whether there is any: most inodes have none, and nothing is to be read for them. */
export function hasXattrs(inode: Inode): boolean {
  return inode.xattrBlock !== 0 || isInInode(inode, GOOD_OLD_BYTES + extraBytes(inode.bytes))
}

function isInInode({ bytes }: Inode, start: number): boolean {
  return start + 4 <= bytes.length && bytes.readUInt32LE(start) === MAGIC
}

/**
 * All attributes of a file, those in its inode and those in a block of their own. Values in inodes of their own (ea_inode) do
 * not occur: the superblock's features rule them out.
 * @throws AppError `snapshot_damaged`
 */
export async function readXattrs(device: BlockDevice, inode: Inode): Promise<Xattrs> {
  const found = new Map<string, Buffer>()
  const start = GOOD_OLD_BYTES + extraBytes(inode.bytes)
  if (isInInode(inode, start)) {
    const area = inode.bytes.subarray(start + 4)
    collect(area, 0, found, device.path, inode.number)
  }
  if (inode.xattrBlock === 0) return found
  const block = await device.metadata(inode.xattrBlock)
  if (block.readUInt32LE(0) !== MAGIC) throw damage(device.path, inode.number)
  collect(block, BLOCK_HEADER_BYTES, found, device.path, inode.number)
  return found
}

function collect(area: Buffer, start: number, into: Map<string, Buffer>, path: string, inode: number): void {
  let at = start
  while (at + 4 <= area.length && area.readUInt32LE(at) !== 0) {
    if (at + ENTRY_BYTES > area.length) throw damage(path, inode)
    const nameBytes = area.readUInt8(at)
    const prefix = prefixes.get(area.readUInt8(at + 1))
    const offset = area.readUInt16LE(at + 2)
    const size = area.readUInt32LE(at + 8)
    const next = at + ENTRY_BYTES + Math.ceil(nameBytes / 4) * 4
    const inPlace = area.readUInt32LE(at + 4) === 0
    if (prefix === undefined || !inPlace || next > area.length || offset + size > area.length) throw damage(path, inode)
    const name = area.toString('latin1', at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes)
    into.set(prefix + name, Buffer.from(area.subarray(offset, offset + size)))
    at = next
  }
}

function damage(path: string, inode: number): Error {
  return damaged(path, `the extended attributes of inode ${inode} contradict themselves`)
}
