const HEAD_BYTES = 5
const COMPRESSED = 1

/** One message of a stream of the Connect protocol. */
export interface Envelope {
  readonly length: number
  readonly isCompressed: boolean
  /** As they came; `undefined` for one that is longer than wanted. */
  readonly bytes: Uint8Array | undefined
}

/** Finds the messages in the bytes of a stream of the Connect protocol (flags, length in 4 bytes, message), however they are cut into chunks. */
export class EnvelopeReader {
  readonly #maxBytes: number
  readonly #onEnvelope: (envelope: Envelope) => void
  #head = Buffer.alloc(0)
  #isCompressed = false
  #length = 0
  #left = 0
  #kept: Uint8Array | undefined
  #keptBytes = 0

  /** @param maxBytes of longer messages only the length is told */
  constructor(maxBytes: number, onEnvelope: (envelope: Envelope) => void) {
    this.#maxBytes = maxBytes
    this.#onEnvelope = onEnvelope
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#head.length < HEAD_BYTES) {
        const part = chunk.subarray(at, at + HEAD_BYTES - this.#head.length)
        at += part.length
        this.#head = Buffer.concat([this.#head, part])
        if (this.#head.length < HEAD_BYTES) return
        this.#begin()
      }
      const part = chunk.subarray(at, at + this.#left)
      at += part.length
      this.#left -= part.length
      this.#keep(part)
      if (this.#left === 0) this.#end()
    }
  }

  /** A view would hold on to all that was read with it, and a message may come byte by byte. */
  #keep(part: Uint8Array): void {
    if (this.#kept === undefined) return
    const needed = this.#keptBytes + part.length
    if (needed > this.#kept.length) {
      const larger = Buffer.alloc(Math.min(this.#length, Math.max(needed, 2 * this.#kept.length)))
      larger.set(this.#kept)
      this.#kept = larger
    }
    this.#kept.set(part, this.#keptBytes)
    this.#keptBytes = needed
  }

  #begin(): void {
    this.#isCompressed = ((this.#head[0] ?? 0) & COMPRESSED) !== 0
    this.#length = this.#head.readUInt32BE(1)
    this.#left = this.#length
    this.#kept = this.#length > this.#maxBytes ? undefined : Buffer.alloc(0)
    this.#keptBytes = 0
  }

  #end(): void {
    const bytes = this.#kept
    this.#head = Buffer.alloc(0)
    this.#kept = undefined
    this.#onEnvelope({ length: this.#length, isCompressed: this.#isCompressed, bytes })
  }
}
