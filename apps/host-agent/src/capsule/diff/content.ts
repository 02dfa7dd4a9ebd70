import type { Mapping } from '../../host/ext4/index.js'
import type { Located } from './overlay-view.js'
import type { SharedBlocks } from './shared-blocks.js'

const CHUNK_BYTES = 2 ** 18
/** Larger files of disks with different block sizes count as changed. */
const MAX_UNALIGNED_BYTES = 2 ** 26
const zeros = Buffer.alloc(CHUNK_BYTES)

/**
 * Whether two files of the two disks hold the same bytes. Blocks that the disk files share are not read, holes neither.
 * `shared` is what the two disks have in common, where that is known.
 */
export async function sameContent(a: Located, b: Located, shared: SharedBlocks | undefined): Promise<boolean> {
  if (a.inode.size !== b.inode.size) return false
  if (a.inode.size === 0 || (a.disk === b.disk && a.inode.number === b.inode.number)) return true
  const comparable = a.disk.blockSize === b.disk.blockSize && !a.disk.isInline(a.inode) && !b.disk.isInline(b.inode)
  if (!comparable) return await sameBytes(a, b)
  for await (const segment of zip(a.disk.mappings(a.inode), b.disk.mappings(b.inode))) {
    if (shared && isShared(a, b, segment, shared)) continue
    if (!(await sameSegment(a, b, segment))) return false
  }
  return true
}

/**
 * Whether the disk files share every block of two files whose inodes are equal byte for byte, so that one map tells of both.
 * False says nothing.
 */
export async function hasSharedContent(a: Located, b: Located, shared: SharedBlocks): Promise<boolean> {
  const size = a.disk.blockSize
  if (b.disk.blockSize !== size) return false
  for await (const { physical, count } of a.disk.mappings(a.inode)) {
    const isShared = shared.has(physical * size, count * size)
    if (!isShared || !a.disk.isInPlace(physical, count) || !b.disk.isInPlace(physical, count)) return false
  }
  return true
}

/** Blocks that lie together in both files; no place means a hole. */
interface Segment {
  readonly logical: number
  readonly count: number
  readonly a: number | undefined
  readonly b: number | undefined
}

function isShared(a: Located, b: Located, { a: placeA, b: placeB, count }: Segment, shared: SharedBlocks): boolean {
  if (placeA === undefined || placeA !== placeB) return false
  const size = a.disk.blockSize
  if (!shared.has(placeA * size, count * size)) return false
  return a.disk.isInPlace(placeA, count) && b.disk.isInPlace(placeB, count)
}

async function sameSegment(a: Located, b: Located, segment: Segment): Promise<boolean> {
  const blockSize = a.disk.blockSize
  const step = CHUNK_BYTES / blockSize
  for (let done = 0; done < segment.count; done += step) {
    const count = Math.min(step, segment.count - done)
    // What follows the end of the file in its last block is nobody's content.
    const length = Math.min(count * blockSize, a.inode.size - (segment.logical + done) * blockSize)
    const bytesA = await bytesOf(a, segment.a, done, count)
    const bytesB = await bytesOf(b, segment.b, done, count)
    if (bytesA.compare(bytesB, 0, length, 0, length) !== 0) return false
  }
  return true
}

async function bytesOf({ disk }: Located, place: number | undefined, done: number, count: number): Promise<Buffer> {
  return place === undefined ? zeros : await disk.blocks(place + done, count)
}

/** For the rare pair that has no common blocks: inline content, or a disk that was formatted anew inside. */
async function sameBytes(a: Located, b: Located): Promise<boolean> {
  if (a.inode.size > MAX_UNALIGNED_BYTES) return false
  for (let offset = 0; offset < a.inode.size; offset += CHUNK_BYTES) {
    const bytesA = await a.disk.read(a.inode, offset, CHUNK_BYTES)
    const bytesB = await b.disk.read(b.inode, offset, CHUNK_BYTES)
    if (!bytesA.equals(bytesB)) return false
  }
  return true
}

async function* zip(
  left: AsyncGenerator<Mapping, void, void>,
  right: AsyncGenerator<Mapping, void, void>,
): AsyncGenerator<Segment, void, void> {
  let position = 0
  try {
    let a = await nextOf(left)
    let b = await nextOf(right)
    while (a !== undefined || b !== undefined) {
      const start = Math.max(
        position,
        Math.min(a?.logical ?? Number.POSITIVE_INFINITY, b?.logical ?? Number.POSITIVE_INFINITY),
      )
      const end = Math.min(boundary(a, start), boundary(b, start))
      yield { logical: start, count: end - start, a: placeAt(a, start), b: placeAt(b, start) }
      position = end
      if (a && a.logical + a.count <= end) a = await nextOf(left)
      if (b && b.logical + b.count <= end) b = await nextOf(right)
    }
  } finally {
    await left.return()
    await right.return()
  }
}

async function nextOf(mappings: AsyncGenerator<Mapping, void, void>): Promise<Mapping | undefined> {
  const { value, done } = await mappings.next()
  return done ? undefined : value
}

/** Where the mapping next begins or ends after `start`. */
function boundary(mapping: Mapping | undefined, start: number): number {
  if (mapping === undefined) return Number.POSITIVE_INFINITY
  return mapping.logical > start ? mapping.logical : mapping.logical + mapping.count
}

function placeAt(mapping: Mapping | undefined, start: number): number | undefined {
  return mapping && mapping.logical <= start ? mapping.physical + start - mapping.logical : undefined
}
