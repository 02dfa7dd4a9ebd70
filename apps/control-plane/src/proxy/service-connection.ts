import type { Socket } from 'node:net'
import {
  type AnswerHead,
  HEAD_END,
  isBeginningOfHead,
  LINE_END_BYTES,
  MAX_HEAD_BYTES,
  readAnswerHead,
} from './answer-head.js'
import { Chunks } from './chunks.js'

/** Gets an answer, in this order, and must not throw. */
export interface AnswerReader {
  /** Of the request: `HEAD` has answers without a body. */
  readonly method: string | undefined
  /** The answer as a whole, when it came at once. */
  onWhole(head: AnswerHead, body: Buffer): void
  onHead(head: AnswerHead): void
  onPart(part: Buffer): void
  onEnd(rawTrailers: string[]): void
  /** The connection has ended before the answer, or the answer is wrong. @param hasBegun whether any of it had come */
  onBroken(hasBegun: boolean): void
  /** Instead of all others: the answer is none that is read here. Its connection, and what of it has come, are the reader's. */
  onUnusual(socket: Socket, seen: Buffer): void
}

/** Where connections wait for requests. */
interface Pool {
  /** It may take another request. */
  onFree(connection: ServiceConnection): void
  /** It takes no more. May be told more than once. */
  onGone(connection: ServiceConnection): void
}

/**
 * HTTP/1.1 to a service, one request at a time, without bodies of requests: what Node's own client makes of streams, events and objects for each
 * request costs more than everything else on its way. Reads answers that are as most are, and hands over every other.
 */
export class ServiceConnection {
  /** Of the pool that it is in. */
  readonly key: string
  readonly #socket: Socket
  readonly #pool: Pool
  #reader: AnswerReader | undefined
  /** Of a head that has not come whole. */
  #seen: Buffer | undefined
  #head: AnswerHead | undefined
  #left = 0
  #chunks: Chunks | undefined
  /** When it became free; milliseconds as of `performance.now()`. */
  freeSinceMs = 0
  /** Whether it has served a request before. */
  isReused = false

  /** Owns the socket. */
  constructor(key: string, socket: Socket, pool: Pool) {
    this.key = key
    this.#socket = socket
    this.#pool = pool
    socket.on('data', this.#onData)
    socket.on('end', this.#onClose)
    socket.on('close', this.#onClose)
  }

  get isOpen(): boolean {
    return this.#socket.writable && !this.#socket.readableEnded
  }

  /** @param head of a request without a body, its empty line included */
  ask(head: string, reader: AnswerReader): void {
    this.#reader = reader
    if (this.isOpen) this.#socket.write(head, 'latin1')
    else this.#onClose()
  }

  /** Ends what it does for `reader`, if it still does. */
  leave(reader: AnswerReader): void {
    if (this.#reader === reader) this.destroy()
  }

  /** Reads no more of an answer until `resume`. */
  pause(): void {
    this.#socket.pause()
  }

  resume(reader: AnswerReader): void {
    if (this.#reader === reader) this.#socket.resume()
  }

  destroy(): void {
    this.#socket.destroy()
    this.#onClose()
  }

  readonly #onClose = (): void => {
    if (!this.#socket.destroyed) this.#socket.destroy()
    const reader = this.#reader
    this.#reader = undefined
    this.#pool.onGone(this)
    reader?.onBroken(this.#head !== undefined || this.#seen !== undefined)
  }

  readonly #onData = (bytes: Buffer): void => {
    // Nobody has asked: what a service says then is no answer to the next.
    if (this.#reader === undefined) this.destroy()
    else if (this.#head === undefined) this.#readHead(this.#reader, bytes)
    else this.#readBody(this.#reader, bytes, 0)
  }

  #readHead(reader: AnswerReader, bytes: Buffer): void {
    const seen = this.#seen === undefined ? bytes : Buffer.concat([this.#seen, bytes])
    const end = seen.indexOf(HEAD_END)
    if (end < 0 && isBeginningOfHead(seen, bytes.length)) {
      this.#seen = seen
      return
    }
    const head =
      end < 0 || end > MAX_HEAD_BYTES
        ? undefined
        : readAnswerHead(seen.toString('latin1', 0, end + LINE_END_BYTES), reader.method)
    if (head === undefined) {
      this.#handOver(reader, seen)
      return
    }
    this.#head = head
    const at = end + HEAD_END.length
    if (head.body === 'chunked') this.#chunks = new Chunks()
    else if (seen.length - at >= head.body) {
      const body = seen.subarray(at, at + head.body)
      this.#finish(seen.length === at + head.body)
      reader.onWhole(head, body)
      return
    } else this.#left = head.body
    reader.onHead(head)
    if (at < seen.length && this.#reader === reader) this.#readBody(reader, seen, at)
  }

  #readBody(reader: AnswerReader, bytes: Buffer, from: number): void {
    if (this.#chunks !== undefined) {
      this.#readChunks(reader, this.#chunks, bytes, from)
      return
    }
    const part = bytes.subarray(from, from + this.#left)
    this.#left -= part.length
    reader.onPart(part)
    if (this.#left > 0 || this.#reader !== reader) return
    this.#finish(from + part.length === bytes.length)
    reader.onEnd([])
  }

  #readChunks(reader: AnswerReader, chunks: Chunks, bytes: Buffer, from: number): void {
    let end: number | undefined
    try {
      end = chunks.read(bytes, from, (part) => {
        if (this.#reader === reader) reader.onPart(part)
      })
    } catch {
      this.destroy() // the reader hears that it is broken
      return
    }
    if (end === undefined || this.#reader !== reader) return
    this.#finish(end === bytes.length)
    reader.onEnd(chunks.rawTrailers)
  }

  /** @param isClean whether nothing follows the answer */
  #finish(isClean: boolean): void {
    const isKept = isClean && this.#head?.isKept === true
    this.#reader = undefined
    this.#seen = undefined
    this.#head = undefined
    this.#chunks = undefined
    this.isReused = true
    this.#socket.resume()
    if (isKept) this.#pool.onFree(this)
    else this.destroy()
  }

  #handOver(reader: AnswerReader, seen: Buffer): void {
    const socket = this.#socket.off('data', this.#onData).off('end', this.#onClose).off('close', this.#onClose)
    this.#reader = undefined
    this.#pool.onGone(this)
    reader.onUnusual(socket, seen)
  }
}
