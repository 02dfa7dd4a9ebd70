import { Transform, type TransformCallback } from 'node:stream'
import { HEAD_TIMEOUT_MS } from './first-bytes.js'
import { UnclearRequest } from './request-head.js'
import type { RequestPart, RequestReader } from './request-reader.js'

const SWITCHED = 'HTTP/1.1 101'

interface GateOptions {
  readonly reader: RequestReader
  /** Asked for each request; one without a name is refused without asking. */
  readonly mayAsk: (name: string) => boolean
}

/**
 * What a client sends by HTTP, on its way to the server: each request is looked at before its first byte goes on, however long the
 * connection lasts. Fails with the first that may not.
 */
export class RequestGate extends Transform {
  readonly #reader: RequestReader
  readonly #mayAsk: GateOptions['mayAsk']
  #answer = ''
  #waiting: TransformCallback | undefined
  #timer: NodeJS.Timeout | undefined

  constructor({ reader, mayAsk }: GateOptions) {
    super()
    this.#reader = reader
    this.#mayAsk = mayAsk
  }

  /** Passes on what the reader has cut already. */
  begin(parts: readonly RequestPart[]): void {
    this.#try(
      () => parts,
      (error) => error && this.destroy(error),
    )
  }

  /** Give it what the server says. */
  heard(chunk: Buffer): void {
    if (!this.#reader.isHolding) return
    this.#answer += chunk.toString('latin1', 0, SWITCHED.length - this.#answer.length)
    if (this.#answer.length < SWITCHED.length && SWITCHED.startsWith(this.#answer)) return
    const callback = this.#waiting ?? ((error) => error && this.destroy(error))
    this.#waiting = undefined
    this.#try(() => this.#reader.answered(this.#answer === SWITCHED), callback)
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    this.#try(() => this.#reader.push(chunk), callback)
  }

  override _flush(callback: TransformCallback): void {
    clearTimeout(this.#timer)
    callback()
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#timer)
    callback(error)
  }

  #try(read: () => readonly RequestPart[], callback: TransformCallback): void {
    try {
      this.#pass(read())
    } catch (error) {
      callback(error instanceof Error ? error : new UnclearRequest(String(error)))
      return
    }
    this.#watchHead()
    // What comes behind a wish for another protocol waits until the server has answered it.
    if (this.#reader.isHolding) this.#waiting = callback
    else callback()
  }

  #pass(parts: readonly RequestPart[]): void {
    for (const part of parts) {
      if (part.kind === 'head') this.#requireAllowed(part.head.host)
      this.push(part.bytes)
    }
  }

  #requireAllowed(name: string | undefined): void {
    if (name === undefined) throw new UnclearRequest('a request without a name')
    if (!this.#mayAsk(name)) throw new UnclearRequest('a request for a name that is not allowed')
  }

  /** A head that does not come to its end is as good as none. */
  #watchHead(): void {
    if (!this.#reader.isInHead) {
      clearTimeout(this.#timer)
      this.#timer = undefined
    } else {
      this.#timer ??= setTimeout(() => this.destroy(new UnclearRequest('a head that takes too long')), HEAD_TIMEOUT_MS)
    }
  }
}
