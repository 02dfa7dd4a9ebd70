const FIRST_BYTES = 2048

/** Bytes that arrive in pieces of any size, in one place: each is copied about twice, however small the pieces are. */
export class GrowingBuffer {
  #space = Buffer.allocUnsafe(0)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** What has arrived; valid until the next `push`. */
  get bytes(): Buffer {
    return this.#space.subarray(0, this.#length)
  }

  push(piece: Buffer): void {
    const needed = this.#length + piece.length
    if (needed > this.#space.length) {
      const larger = Buffer.allocUnsafe(Math.max(FIRST_BYTES, needed, this.#space.length * 2))
      this.#space.copy(larger, 0, 0, this.#length)
      this.#space = larger
    }
    piece.copy(this.#space, this.#length)
    this.#length = needed
  }

  /** Takes all of it out. */
  take(): Buffer {
    const taken = this.bytes
    this.#space = Buffer.allocUnsafe(0)
    this.#length = 0
    return taken
  }
}
