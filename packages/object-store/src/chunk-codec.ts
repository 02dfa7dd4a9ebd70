import { SEAL_BYTES, type StateKeys } from './state-keys.js'
import { compress, decompress } from './zstd.js'

/** First byte of a stored chunk. */
const VERSION = 1
/** Second byte: how the content is written. */
const coding = { plain: 0, zstd: 1 } as const
const HEADER_BYTES = 2
/** So often a chunk on its way is there: plain, compressed, sealed, and as the client sends it. */
export const COPIES = 4

/** A chunk as it is stored: version, coding, and the sealed content. */
export async function packChunk(keys: StateKeys, id: Buffer, plain: Buffer): Promise<Buffer> {
  const packed = await compress(plain)
  const header = Buffer.from([VERSION, packed === undefined ? coding.plain : coding.zstd])
  return Buffer.concat([header, keys.sealChunk(id, header, packed ?? plain)])
}

/** The most that a stored chunk of so many bytes takes. */
export function maxPackedBytes(chunkBytes: number): number {
  return HEADER_BYTES + SEAL_BYTES + chunkBytes
}

/** What {@link unpackChunk} found. */
export type Unpacked = { readonly plain: Buffer } | { readonly fault: string }

/** Opens a stored chunk and compares its content with its name. @param plainBytes how long the content is */
export async function unpackChunk(keys: StateKeys, id: Buffer, stored: Buffer, plainBytes: number): Promise<Unpacked> {
  const header = stored.subarray(0, HEADER_BYTES)
  const [version, how] = header
  if (version !== VERSION) return { fault: `has version ${version ?? 'none'}, and ${VERSION} is known` }
  const content = keys.openChunk(id, header, stored.subarray(HEADER_BYTES))
  if (content === undefined) return { fault: 'was truncated or changed' }
  const plain = how === coding.zstd ? await decompress(content) : content
  if (plain.length !== plainBytes || !(await keys.chunkId(plain)).equals(id)) return { fault: 'has another content' }
  return { plain }
}
