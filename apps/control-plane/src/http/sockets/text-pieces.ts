/** Bytes of a character in UTF-8 by its first one; 0 for one that begins none. */
function sequenceBytes(first: number): number {
  if (first >= 0xf0 && first <= 0xf4) return 4
  if (first >= 0xe0 && first <= 0xef) return 3
  return first >= 0xc2 && first <= 0xdf ? 2 : 0
}

/** How many bytes at the end may be the beginning of a character whose rest is yet to come. */
function unfinishedBytes(bytes: Buffer): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length += 1) {
    const byte = bytes[bytes.length - length] ?? 0
    if ((byte & 0xc0) === 0x80) continue
    return sequenceBytes(byte) > length ? length : 0
  }
  return 0
}

/** Text that ends with a whole character. */
export interface TextPiece {
  readonly text: string
  /** Of the first byte that `text` stands for; absent when the chunks came without. */
  readonly offset: number | undefined
}

/**
 * Bytes that come in chunks as text. A character that is cut between two chunks waits for its rest; a byte order mark stays, for
 * it is as much output as anything else; what is not UTF-8 becomes U+FFFD.
 */
export class TextPieces {
  #held: Buffer = Buffer.alloc(0)
  #heldOffset: number | undefined

  /** What can be told by now; nothing when all of it waits. */
  next(chunk: Uint8Array, offset: number | undefined): TextPiece | undefined {
    const start = this.#held.length > 0 ? this.#heldOffset : offset
    const bytes = this.#held.length > 0 ? Buffer.concat([this.#held, chunk]) : viewOf(chunk)
    const rest = unfinishedBytes(bytes)
    const length = bytes.length - rest
    this.#heldOffset = length > 0 || this.#held.length === 0 ? endOf(offset, chunk.length - rest) : this.#heldOffset
    // A copy: the chunk may be part of something large.
    this.#held = Buffer.from(bytes.subarray(length))
    return length === 0 ? undefined : { text: bytes.toString('utf8', 0, length), offset: start }
  }

  /** What waited in vain. */
  end(): TextPiece | undefined {
    const held = this.#held
    this.#held = Buffer.alloc(0)
    return held.length === 0 ? undefined : { text: held.toString('utf8'), offset: this.#heldOffset }
  }
}

function viewOf(chunk: Uint8Array): Buffer {
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
}

function endOf(offset: number | undefined, length: number): number | undefined {
  return offset === undefined ? undefined : offset + length
}
