import { MAX_HEAD_BYTES, readFields } from './answer-head.js'

const LINE_FEED = 0x0a
/**
 * Some write all sizes equally wide, with zeros in front. Extensions are nobody's but the sender's and the reader's of this connection
 * (RFC 9112 §7.1.1).
 */
const SIZE = /^0*([\da-f]{1,13})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n$/i

/** Reads a body that comes in chunks (RFC 9112 §7.1), however its bytes are cut. */
export class Chunks {
  #expected: 'size' | 'data' | 'data-end' | 'trailers' = 'size'
  /** Of the chunk that is being read. */
  #left = 0
  /** Of a line whose end has not come. */
  #line = ''
  #trailers = ''

  /** Names and values in turn, when the end was reached. */
  get rawTrailers(): string[] {
    return readFields(this.#trailers) ?? []
  }

  /**
   * @param onData gets what the chunks have, in pieces of `bytes`
   * @returns where the body ends in `bytes`, if it does
   * @throws Error for what are no chunks
   */
  read(bytes: Buffer, from: number, onData: (part: Buffer) => void): number | undefined {
    let at = from
    while (at < bytes.length) {
      if (this.#expected === 'data') {
        const part = bytes.subarray(at, at + this.#left)
        at += part.length
        this.#left -= part.length
        if (this.#left === 0) this.#expected = 'data-end'
        onData(part)
        continue
      }
      const lineEnd = bytes.indexOf(LINE_FEED, at)
      const end = lineEnd < 0 ? bytes.length : lineEnd + 1
      this.#line += bytes.toString('latin1', at, end)
      at = end
      if (this.#line.length + this.#trailers.length > MAX_HEAD_BYTES)
        throw new Error('A line between chunks is too long.')
      if (lineEnd < 0) return undefined
      const line = this.#line
      this.#line = ''
      if (this.#take(line)) return at
    }
    return undefined
  }

  /** @returns whether the line was the last */
  #take(line: string): boolean {
    if (this.#expected === 'trailers') {
      if (line === '\r\n') return true
      if (readFields(line) === undefined) throw new Error('A line below the chunks is no trailer.')
      this.#trailers += line
      return false
    }
    if (this.#expected === 'data-end') {
      if (line !== '\r\n') throw new Error('A chunk is longer than its size.')
      this.#expected = 'size'
      return false
    }
    const size = SIZE.exec(line)?.[1]
    if (size === undefined) throw new Error('A chunk has no size.')
    this.#left = Number.parseInt(size, 16)
    this.#expected = this.#left === 0 ? 'trailers' : 'data'
    return false
  }
}
