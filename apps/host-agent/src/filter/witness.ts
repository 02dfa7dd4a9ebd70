import { Transform, type TransformCallback } from 'node:stream'
import { Look } from './first-bytes.js'
import { UnclearRequest } from './request-head.js'
import type { RequestPart, RequestReader } from './request-reader.js'

/**
 * What a client sends, on its way to the server, unchanged and at its pace: what names it says is told, the SNI of its TLS or the host
 * of each of its requests by HTTP. What cannot be read is passed on like anything else.
 */
export class Witness extends Transform {
  readonly #onName: (name: string) => void
  #look: Look | undefined = new Look()
  #reader: RequestReader | undefined

  constructor(onName: (name: string) => void) {
    super()
    this.#onName = onName
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, callback: TransformCallback): void {
    if (this.#look !== undefined) this.#first(this.#look, chunk)
    else if (this.#reader !== undefined) this.#next(this.#reader, chunk)
    callback(null, chunk)
  }

  #first(look: Look, chunk: Buffer): void {
    const beginning = look.push(chunk)
    if (beginning === undefined) return
    this.#look = undefined
    if (beginning.protocol === 'tls') this.#onName(beginning.name)
    if (beginning.protocol !== 'http') return
    this.#reader = beginning.reader
    this.#tell(beginning.parts)
  }

  #next(reader: RequestReader, chunk: Buffer): void {
    try {
      this.#tell(reader.push(chunk))
      // What follows an upgrade are no requests, or none that could be told from it.
      if (reader.isHolding) this.#reader = undefined
    } catch (error) {
      if (!(error instanceof UnclearRequest)) throw error
      this.#reader = undefined
    }
  }

  #tell(parts: readonly RequestPart[]): void {
    for (const part of parts) if (part.kind === 'head' && part.head.host !== undefined) this.#onName(part.head.host)
  }
}
