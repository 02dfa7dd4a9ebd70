import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
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

/**
 * Waits for who speaks first. Of a client that begins with TLS it reads on until that says its name, of any other nothing. What was
 * read is put back.
 */
export async function hearFirst(
  client: Socket,
  server: Socket,
  timeoutMs: number = HEAD_TIMEOUT_MS,
): Promise<string | undefined> {
  const look = new Look()
  const read: Buffer[] = []
  try {
    await Promise.race([readable(client), readable(server)])
    for (const deadline = performance.now() + timeoutMs; ; ) {
      const chunk: Buffer | null = client.read()
      if (chunk === null) return undefined // the server spoke first, or it is over
      read.push(chunk)
      if (read[0]?.[0] !== TLS_FIRST_BYTE) return undefined
      const beginning = look.push(chunk)
      if (beginning !== undefined) return beginning.protocol === 'tls' ? beginning.name : undefined
      if (!(await within(readable(client), deadline - performance.now()))) return undefined
    }
  } finally {
    if (read.length > 0) client.unshift(Buffer.concat(read))
  }
}

/** Ends when there is something to read, or never will be. */
async function readable(socket: Socket): Promise<void> {
  if (socket.readableLength > 0 || socket.readableEnded || socket.destroyed) return
  await new Promise<void>((resolve) => {
    const finish = (): void => {
      socket.off('readable', finish).off('end', finish).off('close', finish)
      resolve()
    }
    socket.on('readable', finish).on('end', finish).on('close', finish)
  })
}

async function within(task: Promise<void>, timeoutMs: number): Promise<boolean> {
  const late = new AbortController()
  const limit = delay(Math.max(timeoutMs, 0), false, { signal: late.signal }).catch(() => false)
  const isInTime = await Promise.race([task.then(() => true), limit])
  late.abort()
  return isInTime
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
