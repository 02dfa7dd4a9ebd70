/** https://docs.kernel.org/filesystems/ext4/inodes.html */
export interface Inode {
  readonly number: number
  /** The inode as it lies on the disk; two equal ones are the same file in the same state. */
  readonly bytes: Buffer
  readonly kind: InodeKind
  /** Permission bits with setuid, setgid and sticky. */
  readonly permissions: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly links: number
  readonly flags: number
  readonly generation: number
  /** Of a character or block device. */
  readonly device: { readonly major: number; readonly minor: number } | undefined
  readonly xattrBlock: number
}

/** What `i_mode` calls the file. */
export type InodeKind = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket'

/** Of `i_flags`, those that change how content is found or whether it can be read. */
export const inodeFlag = { extents: 0x80000, inlineData: 0x10000000, encrypted: 0x800 } as const

/** Where `i_block`, 60 bytes of map or content, begins. */
export const MAP_OFFSET = 0x28
/** Length of `i_block`: twelve direct and three indirect block numbers, or the root of the extent tree. */
export const MAP_BYTES = 60
/** Size of an inode before ext4; what larger ones have beyond it says its own length (`i_extra_isize`). */
export const GOOD_OLD_BYTES = 128

const kinds = new Map<number, InodeKind>([
  [0x1000, 'fifo'],
  [0x2000, 'char'],
  [0x4000, 'directory'],
  [0x6000, 'block'],
  [0x8000, 'file'],
  [0xa000, 'symlink'],
  [0xc000, 'socket'],
])

/** `undefined` for an inode that is free or of no known kind. `bytes` is kept. */
export function parseInode(number: number, bytes: Buffer): Inode | undefined {
  const u16 = (at: number): number => bytes.readUInt16LE(at)
  const u32 = (at: number): number => bytes.readUInt32LE(at)
  const kind = kinds.get(u16(0x00) & 0xf000)
  const links = u16(0x1a)
  if (kind === undefined || links === 0) return undefined
  return {
    number,
    bytes,
    kind,
    permissions: u16(0x00) & 0o7777,
    uid: u16(0x02) + u16(0x78) * 65_536,
    gid: u16(0x18) + u16(0x7a) * 65_536,
    // Only files may be larger than 4 GiB; of directories the upper half once meant something else.
    size: u32(0x04) + (kind === 'file' ? u32(0x6c) * 2 ** 32 : 0),
    links,
    flags: u32(0x20),
    generation: u32(0x64),
    device: kind === 'char' || kind === 'block' ? deviceNumber(bytes) : undefined,
    xattrBlock: u32(0x68) + u16(0x76) * 2 ** 32,
  }
}

/** Bytes after the first 128 that hold fields. */
export function extraBytes(bytes: Buffer): number {
  return bytes.length >= GOOD_OLD_BYTES + 4 ? bytes.readUInt16LE(GOOD_OLD_BYTES) : 0
}

/** When the content changed last, in nanoseconds since 1970. */
export function modifiedAtNs({ bytes }: Inode): bigint {
  return timeNs(bytes, 0x10, 0x88)
}

function timeNs(bytes: Buffer, seconds: number, extra: number): bigint {
  const base = BigInt(bytes.readInt32LE(seconds)) * 1_000_000_000n
  if (extra + 4 > GOOD_OLD_BYTES + extraBytes(bytes) || extra + 4 > bytes.length) return base
  const more = bytes.readUInt32LE(extra)
  return base + BigInt(more & 3) * 2n ** 32n * 1_000_000_000n + BigInt(more >>> 2)
}

/** The old form in the first word of the map, the new one in the second. */
function deviceNumber(bytes: Buffer): { major: number; minor: number } {
  const old = bytes.readUInt32LE(MAP_OFFSET)
  if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff }
  const device = bytes.readUInt32LE(MAP_OFFSET + 4)
  return { major: (device >>> 8) & 0xfff, minor: (device & 0xff) | ((device >>> 12) & 0xfff00) }
}
