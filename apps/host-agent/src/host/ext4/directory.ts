import { damaged } from './damage.js'

/** A name in a directory and the inode that it means; its stored file type is not trusted. */
export interface DirectoryEntry {
  /** Bytes of the name as latin1: `<` on such strings is the order of the bytes. */
  readonly name: string
  readonly inode: number
}

const HEADER_BYTES = 8

/**
 * The entries of one directory block, `.` and `..` left out. An htree's index blocks look like blocks with one unused entry
 * to those who read them linearly. https://docs.kernel.org/filesystems/ext4/directory.html
 */
export function* parseDirectoryBlock(block: Buffer, path: string, directory: number): Generator<DirectoryEntry> {
  let at = 0
  while (at + HEADER_BYTES <= block.length) {
    const inode = block.readUInt32LE(at)
    const length = recordLength(block.readUInt16LE(at + 4), block.length)
    const nameBytes = block.readUInt8(at + 6)
    const isSound = length >= HEADER_BYTES && length % 4 === 0 && at + length <= block.length
    if (!isSound || nameBytes > length - HEADER_BYTES) throw damage(path, directory)
    const name = block.toString('latin1', at + HEADER_BYTES, at + HEADER_BYTES + nameBytes)
    at += length
    if (inode === 0 || name === '.' || name === '..') continue
    if (name === '' || name.includes('/') || name.includes('\0')) throw damage(path, directory)
    yield { name, inode }
  }
}

/** 64 KiB, the length of the only record of such a block, does not fit into its field. */
function recordLength(stored: number, blockSize: number): number {
  return blockSize === 65_536 && (stored === 0 || stored === 65_535) ? blockSize : stored
}

function damage(path: string, directory: number): Error {
  return damaged(path, `directory inode ${directory} contradicts itself`)
}
