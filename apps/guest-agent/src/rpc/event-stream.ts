import type { ServerResponse } from 'node:http'
import type { DescMessage, MessageInitShape } from '@bufbuild/protobuf'
import type { Codec } from './codec.js'
import { FLAG_END, frameHeader } from './frames.js'
import { endOfStream } from './rpc-error.js'

/** The answering side of a server stream. Every send resolves when the socket takes more, so a slow client slows the sender. */
export class EventStream<Desc extends DescMessage> {
  readonly codec: Codec
  readonly #schema: Desc
  readonly #response: ServerResponse

  constructor(schema: Desc, codec: Codec, response: ServerResponse) {
    this.#schema = schema
    this.codec = codec
    this.#response = response
    response.writeHead(200, { 'content-type': `application/connect+${codec.name}` })
  }

  get isClosed(): boolean {
    return this.#response.destroyed
  }

  /** Runs `listener` when the client is gone or the answer is complete. */
  onClose(listener: () => void): void {
    this.#response.once('close', listener)
  }

  /**
   * Sends one message. The answer, where there is one, resolves when the client has room again: await it, or memory fills.
   */
  send(message: MessageInitShape<Desc>): Promise<void> | undefined {
    const payload = this.codec.encode(this.#schema, message)
    return this.sendParts([payload], payload.length)
  }

  /** Sends one already encoded message given in pieces, without joining them. */
  sendParts(parts: readonly Uint8Array[], length: number): Promise<void> | undefined {
    if (this.isClosed) return undefined
    this.#response.cork()
    let flowing = this.#response.write(frameHeader(0, length))
    for (const part of parts) flowing = this.#response.write(part)
    this.#response.uncork()
    return flowing ? undefined : this.#drained()
  }

  /** Sends the last frame: all went well, or the error with its code. */
  end(thrown?: unknown): void {
    if (this.isClosed) return
    const payload = Buffer.from(endOfStream(thrown))
    this.#response.end(Buffer.concat([frameHeader(FLAG_END, payload.length), payload]))
  }

  #drained(): Promise<void> {
    const response = this.#response
    return new Promise((resolve) => {
      const done = (): void => {
        response.off('drain', done)
        response.off('close', done)
        resolve()
      }
      response.once('drain', done)
      response.once('close', done)
    })
  }
}
