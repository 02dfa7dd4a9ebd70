import type { Socket } from 'node:net'
import { readClientHello, TLS_FIRST_BYTE } from './client-hello.js'
import { GrowingBuffer } from './growing-buffer.js'
import { beginsRequest, UnclearRequest } from './request-head.js'
import { MAXIMUM_HEAD_BYTES, type RequestPart, RequestReader } from './request-reader.js'

/** In which the name must be there, from the connection on or from the first byte of a later request. */
export const HEAD_TIMEOUT_MS = 10_000

/** How a connection begins. */
export type Beginning =
  | { readonly protocol: 'tls'; readonly name: string; readonly bytes: Buffer }
  /** `parts` have come, `reader` goes on with what comes. */
  | {
      readonly protocol: 'http'
      readonly name: string
      readonly reader: RequestReader
      readonly parts: readonly RequestPart[]
    }
  /** No name, or none that was said in time. */
  | { readonly protocol: 'unknown' }
  /** It was over before it said anything, or broke off. */
  | { readonly protocol: 'none' }

const unknown: Beginning = { protocol: 'unknown' }

/** Reads a connection until it says whom it is for; then it is paused, and what was read belongs to whoever asked. */
export async function readBeginning(socket: Socket, timeoutMs: number = HEAD_TIMEOUT_MS): Promise<Beginning> {
  return await new Promise((resolve) => {
    const look = new Look()
    const finish = (beginning: Beginning): void => {
      clearTimeout(timer)
      socket.off('data', onData).off('end', onEnd).off('close', onClose).pause()
      resolve(beginning)
    }
    const timer = setTimeout(() => finish(unknown), timeoutMs)
    const onData = (chunk: Buffer): void => {
      const found = look.push(chunk)
      if (found !== undefined) finish(found)
    }
    const onEnd = (): void => finish(look.isEmpty ? { protocol: 'none' } : unknown)
    const onClose = (): void => finish({ protocol: 'none' })
    socket.on('data', onData).once('end', onEnd).once('close', onClose)
  })
}

/** What a connection's first bytes are. */
export class Look {
  readonly #tls = new GrowingBuffer()
  #atLeastBytes = 1
  #reader: RequestReader | undefined
  #isFirst = true

  get isEmpty(): boolean {
    return this.#isFirst
  }

  push(chunk: Buffer): Beginning | undefined {
    const [first] = chunk
    if (first === undefined) return undefined
    if (this.#isFirst && first !== TLS_FIRST_BYTE) {
      if (!beginsRequest(first)) return unknown
      this.#reader = new RequestReader()
    }
    this.#isFirst = false
    return this.#reader === undefined ? this.#pushTls(chunk) : pushHttp(this.#reader, chunk)
  }

  #pushTls(chunk: Buffer): Beginning | undefined {
    this.#tls.push(chunk)
    if (this.#tls.length < this.#atLeastBytes) return undefined
    const sighting = readClientHello(this.#tls.bytes)
    if (sighting.seen === 'name') return { protocol: 'tls', name: sighting.name, bytes: this.#tls.take() }
    if (sighting.seen === 'nothing' || sighting.atLeastBytes > MAXIMUM_HEAD_BYTES) return unknown
    this.#atLeastBytes = sighting.atLeastBytes
    return undefined
  }
}

function pushHttp(reader: RequestReader, chunk: Buffer): Beginning | undefined {
  try {
    const parts = reader.push(chunk)
    const [first] = parts
    if (first?.kind !== 'head') return undefined
    const name = first.head.host
    return name === undefined ? unknown : { protocol: 'http', name, reader, parts }
  } catch (error) {
    if (error instanceof UnclearRequest) return unknown
    throw error
  }
}
