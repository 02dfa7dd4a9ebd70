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
  /** While set, what is sent waits for more. */
  #gathering: NodeJS.Timeout | undefined

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
   * For the next `ms` at most, what is sent waits for what comes after it, to go out in one write: each write is a packet of its own,
   * which costs an emulated guest a millisecond. The end of the stream, or more than the client has room for, ends the waiting.
   */
  gather(ms: number): void {
    const { socket } = this.#response
    if (socket === null || this.isClosed) return
    if (this.#gathering === undefined) socket.cork()
    clearTimeout(this.#gathering)
    this.#gathering = setTimeout(() => this.#release(), ms)
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
    if (flowing) return undefined
    this.#release()
    return this.#drained()
  }

  /** Sends the last frame: all went well, or the error with its code. */
  end(thrown?: unknown): void {
    if (this.isClosed) return
    const payload = Buffer.from(endOfStream(thrown))
    // Ending the answer lets everything go.
    clearTimeout(this.#gathering)
    this.#gathering = undefined
    this.#response.end(Buffer.concat([frameHeader(FLAG_END, payload.length), payload]))
  }

  #release(): void {
    if (this.#gathering === undefined) return
    clearTimeout(this.#gathering)
    this.#gathering = undefined
    this.#response.socket?.uncork()
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
