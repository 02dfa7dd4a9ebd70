import { GrowingBuffer } from './growing-buffer.js'
import { parseRequestHead, type RequestHead, UnclearRequest } from './request-head.js'

/** Of a request's head, the name in it included. */
export const MAXIMUM_HEAD_BYTES = 64 * 1024
/** Of a chunk's size with its extensions, and of a trailer. */
const MAXIMUM_LINE_BYTES = 8 * 1024
const CHUNK_SIZE = /^([0-9a-f]{1,12})(?:[ \t]*;[\t\x20-\x7e]*)?$/i
const HEAD_END = '\r\n\r\n'
const LINE_END = '\r\n'

/** A part of a connection, in its order: a head, whole, or bytes that belong to no head. */
export type RequestPart =
  | { readonly kind: 'head'; readonly head: RequestHead; readonly bytes: Buffer }
  | { readonly kind: 'body'; readonly bytes: Buffer }

type State = 'head' | 'length' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'held' | 'raw'

/**
 * Cuts what a client sends into requests, without changing a byte. After a request that asks for another protocol it holds what
 * follows until {@link RequestReader.answered} says how that ended.
 */
export class RequestReader {
  readonly #line = new GrowingBuffer()
  #state: State = 'head'
  #leftBytes = 0
  #searchedBytes = 0
  #requests = 0
  #upgrade: RequestHead['upgrade'] = 'none'
  #held: Buffer[] = []

  /** Whether a head has begun and is not whole. */
  get isInHead(): boolean {
    return this.#state === 'head' && this.#line.length > 0
  }

  /** Whether what comes next waits for the server's answer to an upgrade. */
  get isHolding(): boolean {
    return this.#state === 'held'
  }

  /** @throws UnclearRequest; nothing of the connection may be passed on then */
  push(chunk: Buffer): readonly RequestPart[] {
    const parts: RequestPart[] = []
    let rest = chunk
    while (rest.length > 0) {
      if (this.#state === 'held') {
        this.#held.push(rest)
        return parts
      }
      rest = this.#step(rest, parts)
    }
    return parts
  }

  /** How an upgrade ended: what was held is cut like anything else, or, with another protocol, passed on as it is. @throws UnclearRequest */
  answered(isSwitched: boolean): readonly RequestPart[] {
    if (this.#state !== 'held') return []
    if (isSwitched && this.#upgrade !== 'websocket') throw new UnclearRequest('another protocol than WebSocket')
    this.#state = isSwitched ? 'raw' : 'head'
    const held = this.#held
    this.#held = []
    return held.flatMap((piece) => this.push(piece))
  }

  /** @returns what of the piece is left */
  #step(piece: Buffer, parts: RequestPart[]): Buffer {
    switch (this.#state) {
      case 'head':
        return this.#readHead(piece, parts)
      case 'length':
      case 'chunk':
        return this.#readBytes(piece, parts)
      case 'chunk-size':
      case 'chunk-end':
      case 'trailers':
        return this.#readLine(piece, parts)
      default:
        parts.push({ kind: 'body', bytes: piece })
        return piece.subarray(piece.length)
    }
  }

  #readHead(piece: Buffer, parts: RequestPart[]): Buffer {
    const found = this.#gather(piece, HEAD_END, MAXIMUM_HEAD_BYTES)
    if (found === undefined) return piece.subarray(piece.length)
    const head = parseRequestHead(found.bytes.toString('latin1', 0, found.bytes.length - HEAD_END.length))
    parts.push({ kind: 'head', head, bytes: found.bytes })
    this.#requests += 1
    this.#upgrade = head.upgrade
    // Of an earlier request's answer it could not be told from this one's.
    if (head.upgrade !== 'none' && this.#requests > 1)
      throw new UnclearRequest('an upgrade that is not the first request')
    if (head.body.framing === 'chunked') this.#state = 'chunk-size'
    else this.#startBytes('length', head.body.bytes)
    return found.rest
  }

  #startBytes(state: 'length' | 'chunk', bytes: number): void {
    this.#leftBytes = bytes
    this.#state = state
    if (bytes === 0) this.#endBytes()
  }

  #readBytes(piece: Buffer, parts: RequestPart[]): Buffer {
    const bytes = piece.subarray(0, this.#leftBytes)
    this.#leftBytes -= bytes.length
    parts.push({ kind: 'body', bytes })
    if (this.#leftBytes === 0) this.#endBytes()
    return piece.subarray(bytes.length)
  }

  #endBytes(): void {
    if (this.#state === 'chunk') this.#state = 'chunk-end'
    else this.#endRequest()
  }

  #endRequest(): void {
    this.#state = this.#upgrade === 'none' ? 'head' : 'held'
  }

  #readLine(piece: Buffer, parts: RequestPart[]): Buffer {
    const found = this.#gather(piece, LINE_END, MAXIMUM_LINE_BYTES)
    if (found === undefined) return piece.subarray(piece.length)
    parts.push({ kind: 'body', bytes: found.bytes })
    this.#endLine(found.bytes.toString('latin1', 0, found.bytes.length - LINE_END.length))
    return found.rest
  }

  #endLine(line: string): void {
    if (/[\r\n]/.test(line)) throw new UnclearRequest('a line that ends in two ways')
    if (this.#state === 'trailers') {
      if (line === '') this.#endRequest()
    } else if (this.#state === 'chunk-end') {
      if (line !== '') throw new UnclearRequest('a chunk that is longer than it says')
      this.#state = 'chunk-size'
    } else {
      const [, size] = CHUNK_SIZE.exec(line) ?? []
      if (size === undefined) throw new UnclearRequest('a chunk without a size')
      const bytes = Number.parseInt(size, 16)
      if (bytes === 0) this.#state = 'trailers'
      else this.#startBytes('chunk', bytes)
    }
  }

  /** Gathers bytes up to and with `end`. */
  #gather(
    piece: Buffer,
    end: string,
    maximumBytes: number,
  ): { readonly bytes: Buffer; readonly rest: Buffer } | undefined {
    const before = this.#line.length
    // No more than is allowed, and what shows that it was more.
    const taken = piece.subarray(0, Math.max(maximumBytes + 1 - before, 0))
    this.#line.push(taken)
    const at = this.#line.bytes.indexOf(end, Math.max(this.#searchedBytes - end.length + 1, 0), 'latin1')
    if (at === -1) {
      if (this.#line.length > maximumBytes) throw new UnclearRequest(`longer than ${maximumBytes} bytes`)
      this.#searchedBytes = this.#line.length
      return undefined
    }
    const length = at + end.length
    const bytes = this.#line.take().subarray(0, length)
    this.#searchedBytes = 0
    return { bytes, rest: piece.subarray(length - before) }
  }
}
