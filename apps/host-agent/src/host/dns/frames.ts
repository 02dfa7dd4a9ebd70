const LENGTH_BYTES = 2
const MAXIMUM_MESSAGE_BYTES = 65_535

/** DNS over TCP: each message behind its length in two bytes. RFC 1035 §4.2.2 */
export function frame(message: Buffer): Buffer {
  const length = Buffer.alloc(LENGTH_BYTES)
  length.writeUInt16BE(message.length)
  return Buffer.concat([length, message])
}

/** Cuts a byte stream into messages. Holds at most one unfinished message, and nothing of what it has given out. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0)
  #oversized = false

  constructor(private readonly maximumBytes = MAXIMUM_MESSAGE_BYTES) {}

  /** Whether a message longer than allowed was announced: nothing behind it is read any more. */
  get oversized(): boolean {
    return this.#oversized
  }

  /** The messages that are complete by now; none any more once one was too long. */
  push(chunk: Buffer): readonly Buffer[] {
    if (this.#oversized) return []
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const messages: Buffer[] = []
    while (bytes.length >= LENGTH_BYTES) {
      const end = LENGTH_BYTES + bytes.readUInt16BE(0)
      this.#oversized = end - LENGTH_BYTES > this.maximumBytes
      if (this.#oversized || bytes.length < end) break
      messages.push(bytes.subarray(LENGTH_BYTES, end))
      bytes = bytes.subarray(end)
    }
    // A copy: a part of the chunk would keep all 64 KiB of it.
    this.#rest = Buffer.from(this.#oversized ? [] : bytes)
    return messages
  }
}
