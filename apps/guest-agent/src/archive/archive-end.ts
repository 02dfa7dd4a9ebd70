/** Two blocks of zeros end every tar (POSIX, ustar interchange format). */
const END_BYTES = 1024

/** Watches a tar go by, and knows afterwards whether it had its end: GNU tar takes one that stops between two entries as whole. */
export class EndWatch {
  #zeros = 0
  #bytes = 0

  /** Looks at the next bytes of the archive; costs no more than their last 1024. */
  push(chunk: Uint8Array): void {
    this.#bytes += chunk.length
    let at = chunk.length
    const first = Math.max(0, chunk.length - END_BYTES)
    while (at > first && chunk[at - 1] === 0) at--
    const zeros = chunk.length - at
    this.#zeros = at === first && zeros === chunk.length ? this.#zeros + zeros : zeros
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Whether the last 1024 bytes are zeros: the two blocks that end a tar. */
  get isComplete(): boolean {
    return this.#zeros >= END_BYTES
  }
}
