import type { BlockDevice } from './block-device.js'
import { damaged } from './damage.js'
import { type Inode, inodeFlag, MAP_BYTES, MAP_OFFSET } from './inode.js'

/** Consecutive blocks of a file that lie together on the disk. What no mapping covers is a hole. */
export interface Mapping {
  /** First block of the file. */
  readonly logical: number
  readonly count: number
  /** First block on the disk. */
  readonly physical: number
}

const EXTENT_MAGIC = 0xf30a
const EXTENT_BYTES = 12
const MAX_DEPTH = 5
/** A longer one is unwritten by this much. https://docs.kernel.org/filesystems/ext4/ifork.html */
const MAX_WRITTEN = 32_768

/** The written blocks of an inode, ascending; preallocated ones read as zeros and are left out, like all past its end. */
export async function* mappings(device: BlockDevice, inode: Inode): AsyncGenerator<Mapping, void, void> {
  if (inode.size === 0) return
  const end = Math.ceil(inode.size / device.blockSize)
  const map = inode.bytes.subarray(MAP_OFFSET, MAP_OFFSET + MAP_BYTES)
  const source =
    (inode.flags & inodeFlag.extents) === 0
      ? indirectMappings(device, inode, map, end)
      : extentMappings(device, inode, map)
  for await (const { logical, count, physical } of source) {
    if (logical >= end) return
    yield { logical, count: Math.min(count, end - logical), physical }
  }
}

async function* extentMappings(device: BlockDevice, inode: Inode, map: Buffer): AsyncGenerator<Mapping> {
  const walk = new ExtentWalk(device, inode)
  yield* walk.node(map, undefined)
}

/** Walks an extent tree. Offsets must ascend from leaf to leaf, so a tree that refers to itself is found out. */
class ExtentWalk {
  #next = 0

  constructor(
    private readonly device: BlockDevice,
    private readonly inode: Inode,
  ) {}

  async *node(bytes: Buffer, expectedDepth: number | undefined): AsyncGenerator<Mapping> {
    const entries = bytes.readUInt16LE(2)
    const depth = bytes.readUInt16LE(6)
    const fits = EXTENT_BYTES * (entries + 1) <= bytes.length
    if (bytes.readUInt16LE(0) !== EXTENT_MAGIC || !fits || depth > MAX_DEPTH) throw this.#damage()
    if (expectedDepth !== undefined && depth !== expectedDepth) throw this.#damage()
    for (let index = 1; index <= entries; index += 1) {
      const entry = bytes.subarray(index * EXTENT_BYTES, (index + 1) * EXTENT_BYTES)
      if (depth === 0) yield* this.#leaf(entry)
      else yield* this.#child(entry, depth)
    }
  }

  async *#child(entry: Buffer, depth: number): AsyncGenerator<Mapping> {
    this.#advance(entry.readUInt32LE(0), 0)
    const block = entry.readUInt32LE(4) + entry.readUInt16LE(8) * 2 ** 32
    // A copy, because the cache may drop the page while the caller reads what was yielded.
    yield* this.node(Buffer.from(await this.device.metadata(block)), depth - 1)
  }

  *#leaf(entry: Buffer): Generator<Mapping> {
    const logical = entry.readUInt32LE(0)
    const length = entry.readUInt16LE(4)
    const written = length <= MAX_WRITTEN
    const count = written ? length : length - MAX_WRITTEN
    if (count === 0) throw this.#damage()
    this.#advance(logical, count)
    if (written) yield { logical, count, physical: entry.readUInt32LE(8) + entry.readUInt16LE(6) * 2 ** 32 }
  }

  #advance(logical: number, count: number): void {
    if (logical < this.#next) throw this.#damage()
    this.#next = logical + count
  }

  #damage(): Error {
    return damaged(this.device.path, `the extent tree of inode ${this.inode.number} contradicts itself`)
  }
}

const DIRECT_BLOCKS = 12

async function* indirectMappings(device: BlockDevice, inode: Inode, map: Buffer, end: number): AsyncGenerator<Mapping> {
  const perBlock = device.blockSize / 4
  if (inode.kind === 'symlink' && inode.size < MAP_BYTES) return
  let logical = 0
  for (let index = 0; index < DIRECT_BLOCKS + 3 && logical < end; index += 1) {
    const level = Math.max(0, index - DIRECT_BLOCKS + 1)
    yield* indirectNode(device, map.readUInt32LE(index * 4), level, logical, end)
    logical += perBlock ** level
  }
}

async function* indirectNode(
  device: BlockDevice,
  block: number,
  level: number,
  logical: number,
  end: number,
): AsyncGenerator<Mapping> {
  if (block === 0) return
  if (level === 0) {
    yield { logical, count: 1, physical: block }
    return
  }
  const bytes = Buffer.from(await device.metadata(block))
  const span = (device.blockSize / 4) ** (level - 1)
  for (let at = 0; at < bytes.length && logical + (at / 4) * span < end; at += 4) {
    yield* indirectNode(device, bytes.readUInt32LE(at), level - 1, logical + (at / 4) * span, end)
  }
}
