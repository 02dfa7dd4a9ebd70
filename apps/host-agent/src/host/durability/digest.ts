import { createHash, webcrypto } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { dataRanges } from '../extents/index.js'

const CHUNK_BYTES = 2 ** 20
const zeros = Buffer.alloc(CHUNK_BYTES)
const FORMAT = 'wrenn-sparse-sha256-v1\n'

/** How a long reading is ended and followed. */
export interface DigestOptions {
  readonly signal?: AbortSignal | undefined
  /** Called with the number of bytes read since the last call. */
  readonly onBytes?: ((bytes: number) => void) | undefined
}

/**
 * SHA-256 of a file's logical content, which costs nothing for holes and is the same however the file is laid out: a hole, a
 * preallocated stretch and written zeros are equal.
 *
 * The file is cut into chunks of 1 MiB (the last may be shorter). The digest is SHA-256 over: the 23 bytes
 * `wrenn-sparse-sha256-v1\n`; then for each chunk that is not all zeros, in order, its offset (u64, big endian) and its
 * SHA-256 (32 bytes); then the file's size (u64, big endian).
 *
 * Chunks are hashed on Node's thread pool, so the event loop only passes buffers on.
 */
export async function sparseDigest(
  path: string,
  options: DigestOptions = {},
): Promise<{ bytes: number; sha256: string }> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const root = createHash('sha256').update(FORMAT)
    for await (const chunk of digestChunks(file, path, size, options))
      root.update(u64(chunk.offset)).update(chunk.digest)
    return { bytes: size, sha256: root.update(u64(size)).digest('hex') }
  } finally {
    await file.close()
  }
}

interface DigestedChunk {
  readonly offset: number
  readonly digest: Buffer
}

/** Reads the next chunk while the last is hashed; an abort is seen between chunks, which take about a millisecond each. */
async function* digestChunks(
  file: FileHandle,
  path: string,
  size: number,
  options: DigestOptions,
): AsyncGenerator<DigestedChunk> {
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)] as const
  let turn: 0 | 1 = 0
  let pending: Promise<DigestedChunk> | undefined
  try {
    for await (const offset of chunksWithData(path, options)) {
      options.signal?.throwIfAborted()
      const chunk = await readChunk(file, buffers[turn], offset, size)
      options.onBytes?.(chunk.length)
      if (zeros.compare(chunk, 0, chunk.length, 0, chunk.length) === 0) continue
      if (pending) yield await pending
      pending = digestChunk(offset, chunk)
      pending.catch(() => {}) // it is awaited a chunk later
      turn = turn === 0 ? 1 : 0
    }
    if (pending) yield await pending
  } finally {
    await pending?.catch(() => {}) // the buffer stays in use until then
  }
}

/** Offsets of the chunks that hold something, ascending. */
async function* chunksWithData(path: string, options: DigestOptions): AsyncGenerator<number> {
  let next = 0
  for await (const { offset, length } of dataRanges(path, { signal: options.signal })) {
    const first = Math.max(next, Math.floor(offset / CHUNK_BYTES) * CHUNK_BYTES)
    for (let at = first; at < offset + length; at += CHUNK_BYTES) {
      yield at
      next = at + CHUNK_BYTES
    }
  }
}

async function readChunk(file: FileHandle, buffer: Buffer, offset: number, size: number): Promise<Buffer> {
  const wanted = Math.min(CHUNK_BYTES, size - offset)
  let filled = 0
  while (filled < wanted) {
    const { bytesRead } = await file.read(buffer, filled, wanted - filled, offset + filled)
    if (bytesRead === 0) break // the file became shorter: its size, hashed last, tells
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

async function digestChunk(offset: number, chunk: Uint8Array): Promise<DigestedChunk> {
  return { offset, digest: Buffer.from(await webcrypto.subtle.digest('SHA-256', chunk)) }
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
