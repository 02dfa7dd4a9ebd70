import { errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import type { TemplateBuildLogRow, TemplateBuildRow } from '../../store/schema.js'
import { appendBuildLog, type LogLine, lineBytes } from '../../store/template-logs.js'
import { plainLine } from './plain-text.js'
import { MaskedStream, SecretMask } from './secret-mask.js'

const FLUSH_EVERY_MS = 300
const MAX_LINE_LENGTH = 4096
/** So many wait for the database; who says more waits, too. */
const MAX_WAITING = 500

interface BuildLogDeps {
  readonly db: Db
  readonly logger: Logger
  /** Of what commands print. */
  readonly maxBytes: number
}

type Level = TemplateBuildLogRow['level']

/** What one attempt at a build says; lines reach the database a moment later, in their order. */
export class BuildLog {
  readonly #deps: BuildLogDeps
  readonly #build: TemplateBuildRow
  readonly #timer: NodeJS.Timeout
  #waiting: LogLine[] = []
  #bytes: number
  #isCut: boolean
  #flushing: Promise<void> = Promise.resolve()

  constructor(deps: BuildLogDeps, build: TemplateBuildRow) {
    this.#deps = deps
    this.#build = build
    this.#bytes = build.log_bytes
    this.#isCut = build.log_bytes >= deps.maxBytes
    this.#timer = setInterval(() => void this.flush(), FLUSH_EVERY_MS)
  }

  /** A line of the platform's own; these are few, and none is left out. */
  say(step: string, text: string, level: Level = 'info'): void {
    this.#add({ at: new Date(), level, step, message: plainLine(text, MAX_LINE_LENGTH) })
  }

  /**
   * What one stream of a command prints. Its lines are cut where they are too long, and all of it at the limit, which is said.
   * @param mask what is not in it
   */
  stream(step: string, level: Level, mask = new SecretMask()): LineStream {
    const onLine = async (text: string): Promise<void> => {
      // Again, for a secret that colours were in.
      const message = mask.hide(plainLine(text, MAX_LINE_LENGTH)).slice(0, MAX_LINE_LENGTH)
      this.#print({ at: new Date(), level, step, message })
      if (this.#waiting.length >= MAX_WAITING) await this.flush()
    }
    return new LineStream(onLine, () => this.#isCut, mask)
  }

  /** Waits until all that was said is in the database, or cannot get there. */
  async flush(): Promise<void> {
    const lines = this.#waiting
    this.#waiting = []
    if (lines.length > 0) this.#flushing = this.#flushing.then(() => this.#write(lines))
    await this.#flushing
  }

  /** Nothing is said any more. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
  }

  #print(line: LogLine): void {
    if (this.#isCut) return
    if (this.#bytes + lineBytes(line) <= this.#deps.maxBytes) {
      this.#add(line)
      return
    }
    this.#isCut = true
    const message = `The output is longer than ${this.#deps.maxBytes / 2 ** 20} MiB (WRENN_BUILD_LOG_MAX_MIB); the rest is left out.`
    this.#add({ ...line, level: 'warn', message })
  }

  #add(line: LogLine): void {
    this.#bytes += lineBytes(line)
    this.#waiting.push(line)
  }

  async #write(lines: readonly LogLine[]): Promise<void> {
    try {
      await appendBuildLog(this.#deps.db, this.#build, lines)
    } catch (error) {
      this.#deps.logger.warn({ buildId: this.#build.id, error: errorText(error) }, 'template_build.log_lost')
    }
  }
}

/** Bytes of one stream as lines. */
export class LineStream {
  readonly #onLine: (line: string) => Promise<void>
  /** Whether nobody wants more. */
  readonly #isOver: () => boolean
  readonly #decoder = new TextDecoder()
  readonly #masked: MaskedStream
  #rest = ''

  constructor(onLine: (line: string) => Promise<void>, isOver: () => boolean, mask = new SecretMask()) {
    this.#onLine = onLine
    this.#isOver = isOver
    this.#masked = new MaskedStream(mask)
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#isOver()) return
    await this.#take(this.#masked.write(this.#decoder.decode(bytes, { stream: true })))
  }

  async #take(text: string): Promise<void> {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      if (this.#isOver()) return
      await this.#onLine(line.replace(/\r$/, ''))
    }
    if (this.#rest.length <= MAX_LINE_LENGTH) return
    await this.#onLine(this.#rest)
    this.#rest = ''
  }

  /** The last line, when it has no end. */
  async end(): Promise<void> {
    await this.#take(this.#masked.write(this.#decoder.decode()) + this.#masked.end())
    const last = this.#rest
    this.#rest = ''
    if (last !== '') await this.#onLine(last)
  }
}
