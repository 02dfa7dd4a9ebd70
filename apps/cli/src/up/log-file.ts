import { createWriteStream, existsSync, mkdirSync, renameSync, statSync, type WriteStream } from 'node:fs'
import { dirname } from 'node:path'
import { StringDecoder } from 'node:string_decoder'

const LIMIT_BYTES = 16 * 1024 * 1024
const KEPT_LINES = 8

/** A child's output on disk: at most two files of 16 MiB, and its last lines in memory for messages. */
export class LogFile {
  readonly path: string
  #stream: WriteStream
  #sizeBytes: number
  #lines: string[] = []
  #partial = ''
  /** A character may be cut between two chunks. */
  readonly #decoder = new StringDecoder('utf8')

  constructor(path: string) {
    this.path = path
    mkdirSync(dirname(path), { recursive: true })
    this.#sizeBytes = existsSync(path) ? statSync(path).size : 0
    this.#stream = this.#open()
  }

  write(chunk: Buffer): void {
    if (this.#sizeBytes > LIMIT_BYTES) this.#rotate()
    this.#stream.write(chunk)
    this.#sizeBytes += chunk.length
    const lines = (this.#partial + this.#decoder.write(chunk)).split('\n')
    this.#partial = (lines.pop() ?? '').slice(-4096)
    this.#lines = [...this.#lines, ...lines].slice(-KEPT_LINES)
  }

  /** The last lines written since the start of the current child. */
  get lastLines(): readonly string[] {
    return [...this.#lines, this.#partial].filter((line) => line.trim() !== '')
  }

  forgetLines(): void {
    this.#lines = []
    this.#partial = ''
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#stream.end(() => resolve()))
  }

  #open(): WriteStream {
    const stream = createWriteStream(this.path, { flags: 'a', mode: 0o640 })
    // A full disk must not take the platform down with it: the log has a gap then.
    stream.on('error', () => {})
    return stream
  }

  #rotate(): void {
    this.#stream.end()
    renameSync(this.path, `${this.path}.1`)
    this.#stream = this.#open()
    this.#sizeBytes = 0
  }
}
