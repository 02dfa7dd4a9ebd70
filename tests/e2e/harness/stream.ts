import { createRequire } from 'node:module'
import { join } from 'node:path'
import { decodeBinaryFrame, encodeBinaryFrame, type ProcessOutputFrame, type PtyOutputFrame } from '@wrenn/protocol'
import type { WebSocket as WsSocket } from 'ws'
import type { TestCapsule } from './api.js'
import type { Platform } from './platform.js'

type WsConstructor = new (
  url: string,
  protocols: readonly string[],
  options: { headers: Readonly<Record<string, string>> },
) => WsSocket

/** Node 20 has no WebSocket of its own; this is the class the product's packages bring. */
export function webSocketOf(platform: Pick<Platform, 'artefacts'>): WsConstructor {
  return createRequire(join(platform.artefacts, 'package.json'))('ws')
}

export type Frame = ProcessOutputFrame | PtyOutputFrame | BinaryOutput

/** A binary frame, as an event of its own. */
export interface BinaryOutput {
  readonly type: 'binary'
  readonly kind: string
  readonly offset: number
  readonly payload: Buffer
}

/** Far longer than any step of a test takes: a frame that does not come by then never will. */
const SILENCE_MS = 60_000
/** How much of what came before is told when nothing more comes. */
const TOLD_FRAMES = 5
const TOLD_CHARS = 2_000

interface OpenOptions {
  readonly protocols?: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
}

/**
 * One of the API's WebSockets, read frame by frame. Whatever waits here fails after a bounded silence and tells what it waited
 * for and what came until then; pings are no frames, so a connection that is merely alive is silent.
 */
export class Stream implements AsyncDisposable {
  readonly #socket: WsSocket
  readonly #frames: Frame[] = []
  readonly #read: Frame[] = []
  readonly #wakers: (() => void)[] = []
  readonly #closed: Promise<number>
  #isClosed = false

  private constructor(socket: WsSocket) {
    this.#socket = socket
    socket.on('message', (data, isBinary) => {
      const frame: Frame = isBinary ? toBinary(Buffer.from(data as Buffer)) : JSON.parse(String(data))
      if (frame.type === 'ping') return
      this.#frames.push(frame)
      this.#wake()
    })
    this.#closed = new Promise((resolve) => {
      socket.once('close', (code) => {
        this.#isClosed = true
        this.#wake()
        resolve(code)
      })
    })
  }

  static async open(platform: Platform, path: string, options: OpenOptions = {}): Promise<Stream> {
    const Socket = webSocketOf(platform)
    const url = new URL(path, platform.url.replace(/^http/, 'ws'))
    const headers = options.headers ?? { 'X-API-Key': platform.apiKey }
    const socket = new Socket(url.href, options.protocols ?? [], { headers })
    const stream = new Stream(socket)
    await new Promise<void>((resolve, reject) => {
      socket.once('open', () => resolve())
      socket.once('error', reject)
    })
    socket.on('error', () => {}) // a broken connection shows as its close
    return stream
  }

  /** Opens a socket about a capsule and sends its first frame. */
  static async start(
    platform: Platform,
    capsule: TestCapsule,
    route: 'exec/stream' | 'pty',
    frame: object,
    options: OpenOptions = {},
  ): Promise<Stream> {
    const stream = await Stream.open(platform, `${capsule.path}/${route}`, options)
    stream.send({ type: 'start', ...frame })
    return stream
  }

  #wake(): void {
    for (const wake of this.#wakers.splice(0)) wake()
  }

  send(frame: object): void {
    this.#socket.send(JSON.stringify(frame))
  }

  sendInput(type: 'stdin' | 'input', data: string | Uint8Array): void {
    this.send({ type, data: Buffer.from(data).toString('base64') })
  }

  sendBinary(data: Uint8Array): void {
    this.#socket.send(encodeBinaryFrame('input', 0, data))
  }

  /** The close code, once the socket has closed. */
  get closed(): Promise<number> {
    return this.#beforeSilence('the socket to close', this.#closed)
  }

  /** The next frame, or `undefined` when the socket has closed. */
  async next(what = 'the next frame'): Promise<Frame | undefined> {
    while (this.#frames.length === 0 && !this.#isClosed) {
      await this.#beforeSilence(what, new Promise<void>((resolve) => this.#wakers.push(resolve)))
    }
    const frame = this.#frames.shift()
    if (frame !== undefined) this.#read.push(frame)
    return frame
  }

  async #beforeSilence<T>(what: string, event: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`Nothing came for ${SILENCE_MS} ms while waiting for ${what}. ${this.#soFar()}`)),
        SILENCE_MS,
      )
    })
    return await Promise.race([event, silence]).finally(() => clearTimeout(timer))
  }

  /** What came until now: the end of the output, and the last frames. */
  #soFar(): string {
    const output = JSON.stringify(outputOf(this.#read.slice(-1_000)).toString().slice(-TOLD_CHARS))
    const last = this.#read.slice(-TOLD_FRAMES).map((frame) => JSON.stringify(frame).slice(0, 300))
    return `Output so far ends in ${output}; the last of ${this.#read.length} frames: ${last.join(' ') || 'none'}`
  }

  async #nextBeforeClose(what: string): Promise<Frame> {
    const frame = await this.next(what)
    if (frame === undefined) throw new Error(`The socket closed before ${what} came. ${this.#soFar()}`)
    return frame
  }

  /** Reads frames up to the first that `wanted` accepts; gives all of them. `what` names it in the error. */
  async until(wanted: (frame: Frame) => boolean, what = 'the wanted frame'): Promise<Frame[]> {
    const seen: Frame[] = []
    for (;;) {
      const frame = await this.#nextBeforeClose(what)
      seen.push(frame)
      if (wanted(frame)) return seen
    }
  }

  /** Reads until the output holds `text`; gives the output. */
  async untilOutput(text: string): Promise<string> {
    const seen: Frame[] = []
    for (;;) {
      seen.push(await this.#nextBeforeClose(`output ${JSON.stringify(text)}`))
      const output = outputOf(seen).toString()
      if (output.includes(text)) return output
    }
  }

  async untilExit(): Promise<{ readonly frames: Frame[]; readonly output: Buffer; readonly exit: ExitFrame }> {
    const frames = await this.until(({ type }) => type === 'exit' || type === 'error', 'the exit')
    const exit = frames.at(-1)
    if (exit?.type !== 'exit') throw new Error(`No exit but ${JSON.stringify(exit)}. ${this.#soFar()}`)
    return { frames, output: outputOf(frames), exit }
  }

  /** Stops reading from the connection, as a client does whose machine sleeps. */
  stall(): void {
    this.#socket.pause()
  }

  /** Reads on after `stall`. */
  readOn(): void {
    this.#socket.resume()
  }

  close(): void {
    this.#socket.close()
  }

  /** Drops the connection without a goodbye, as a lost network does. */
  drop(): void {
    this.#socket.terminate()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.terminate()
    await this.#closed
  }
}

export type ExitFrame = Extract<Frame, { type: 'exit' }>

function toBinary(data: Buffer): BinaryOutput {
  const frame = decodeBinaryFrame(data)
  if (frame === undefined) throw new Error('A binary frame has a kind and an offset.')
  return { type: 'binary', kind: frame.kind, offset: frame.offset, payload: Buffer.from(frame.payload) }
}

/** The bytes of one output frame. */
export function bytesOf(frame: Frame): Buffer {
  if (frame.type === 'binary') return frame.payload
  if (frame.type === 'output') return Buffer.from(frame.data, 'base64')
  if (frame.type !== 'stdout' && frame.type !== 'stderr') return Buffer.alloc(0)
  return Buffer.from(frame.data, 'encoding' in frame && frame.encoding === 'base64' ? 'base64' : 'utf8')
}

/** All output in its order, streams mixed as they came. */
export function outputOf(frames: readonly Frame[]): Buffer {
  return Buffer.concat(frames.map(bytesOf))
}

/** Offset of the byte after the last output frame. */
export function endOf(frames: readonly Frame[]): number {
  const last = frames.findLast((frame) => bytesOf(frame).length > 0)
  if (last === undefined || !('offset' in last) || last.offset === undefined)
    throw new Error('No output with an offset.')
  return last.offset + bytesOf(last).length
}
