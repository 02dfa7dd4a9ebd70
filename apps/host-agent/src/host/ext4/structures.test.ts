import { describe, expect, it } from 'vitest'
import { parseDirectoryBlock } from './directory.js'
import { modifiedAtNs, parseInode } from './inode.js'
import { parseSuperblock, SUPERBLOCK_BYTES } from './superblock.js'

const MIB = 2 ** 20

function record(inode: number, length: number, name: string): Buffer {
  const bytes = Buffer.alloc(length)
  bytes.writeUInt32LE(inode, 0)
  bytes.writeUInt16LE(length, 4)
  bytes.writeUInt8(name.length, 6)
  bytes.write(name, 8, 'latin1')
  return bytes
}
const parse = (...records: readonly Buffer[]) => [...parseDirectoryBlock(Buffer.concat(records), 'disk', 2)]

describe('a directory block', () => {
  it('gives the used entries but itself and its parent', () => {
    const block = [record(2, 12, '.'), record(2, 12, '..'), record(0, 16, 'unused'), record(12, 24, 'file-\xff')]
    expect(parse(...block)).toEqual([{ name: 'file-\xff', inode: 12 }])
  })

  it.each([
    [
      'a record of no length',
      () => {
        const bytes = record(12, 24, 'x')
        bytes.writeUInt16LE(0, 4)
        return bytes
      },
    ],
    [
      'a record beyond the block',
      () => {
        const bytes = record(12, 24, 'x')
        bytes.writeUInt16LE(28, 4)
        return bytes
      },
    ],
    [
      'a name beyond its record',
      () => {
        const bytes = record(12, 24, 'x')
        bytes.writeUInt8(20, 6)
        return bytes
      },
    ],
    ['a slash in a name', () => record(12, 24, '../../etc')],
    ['an empty name', () => record(12, 24, '')],
  ])('is refused with %s', (_, make) => {
    expect(() => parse(make())).toThrow(/directory inode 2/)
  })
})

function superblock(change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES)
  bytes.writeUInt32LE(8192, 0x00)
  bytes.writeUInt32LE(16_384, 0x04)
  bytes.writeUInt32LE(2, 0x18)
  bytes.writeUInt32LE(32_768, 0x20)
  bytes.writeUInt32LE(8192, 0x28)
  bytes.writeUInt16LE(0xef53, 0x38)
  bytes.writeUInt32LE(1, 0x4c)
  bytes.writeUInt16LE(256, 0x58)
  bytes.writeUInt32LE(0x2c2, 0x60)
  bytes.writeUInt16LE(64, 0xfe)
  change(bytes)
  return bytes
}

describe('a superblock', () => {
  it('tells the shape of the file system', () => {
    expect(parseSuperblock(superblock(), 'disk', 64 * MIB)).toMatchObject({
      blockSize: 4096,
      blockCount: 16_384,
      groupCount: 1,
      needsRecovery: false,
    })
  })

  it.each<[string, (bytes: Buffer) => void, RegExp]>([
    ['another magic number', (bytes) => bytes.writeUInt16LE(0, 0x38), /no ext4 superblock/],
    ['features that are not known', (bytes) => bytes.writeUInt32LE(0x102c2, 0x60), /0x10000/],
    ['an endless block size', (bytes) => bytes.writeUInt32LE(31, 0x18), /block size/],
    ['groups of no blocks', (bytes) => bytes.writeUInt32LE(0, 0x20), /block groups/],
    ['groups of no inodes', (bytes) => bytes.writeUInt32LE(0, 0x28), /inodes per group/],
    ['inodes of an odd size', (bytes) => bytes.writeUInt16LE(255, 0x58), /inode size/],
    ['more inodes than its groups hold', (bytes) => bytes.writeUInt32LE(0xffffffff, 0x00), /more inodes/],
    ['descriptors of an odd size', (bytes) => bytes.writeUInt16LE(48, 0xfe), /descriptors/],
    ['more blocks than the file', (bytes) => bytes.writeUInt32LE(0xffffffff, 0x150), /bytes/],
  ])('is refused with %s', (_, change, message) => {
    expect(() => parseSuperblock(superblock(change), 'disk', 64 * MIB)).toThrow(message)
  })
})

describe('an inode', () => {
  it('has owners, sizes and times beyond 16 and 32 bits', () => {
    const bytes = Buffer.alloc(256)
    bytes.writeUInt16LE(0x81a4, 0x00)
    bytes.writeUInt16LE(0x86a0, 0x02)
    bytes.writeUInt16LE(0xffff, 0x78)
    bytes.writeUInt32LE(5, 0x04)
    bytes.writeUInt32LE(2, 0x6c)
    bytes.writeUInt16LE(1, 0x1a)
    bytes.writeUInt16LE(32, 0x80)
    bytes.writeInt32LE(-1, 0x10)
    bytes.writeUInt32LE(1 | (7 << 2), 0x88)
    const inode = parseInode(12, bytes)
    expect(inode && modifiedAtNs(inode)).toBe((2n ** 32n - 1n) * 1_000_000_000n + 7n)
    expect(inode).toMatchObject({
      kind: 'file',
      permissions: 0o644,
      uid: 0xffff86a0,
      size: 2 * 2 ** 32 + 5,
    })
  })

  it('is nothing when it is free', () => {
    expect(parseInode(12, Buffer.alloc(256))).toBeUndefined()
  })
})
