import { once } from 'node:events'

const SPINNER = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']
const SPINNER_INTERVAL_MS = 100

interface OutputOptions {
  readonly json: boolean
  readonly color: boolean
}

/** One line that changes while something takes its time; plain lines where stderr is not a terminal. */
export interface Progress {
  update(text: string): void
  /** Ends the line, leaving `text` behind when given. */
  done(text?: string): void
}

const silent: Progress = { update: () => {}, done: () => {} }

/** The only place that prints. Results go to stdout and are a contract; everything said to a person goes to stderr. */
export class Output {
  readonly json: boolean
  readonly #color: boolean

  constructor(options: OutputOptions) {
    this.json = options.json
    this.#color = options.color
  }

  /** One document in JSON mode, else the text that `human` makes. */
  result(value: unknown, human: () => string): void {
    console.log(this.json ? JSON.stringify(value) : human())
  }

  /** Something to know now, not part of the result. */
  note(text: string): void {
    if (!this.json) console.error(text)
  }

  /** What a person must know to go on, also beside a result in JSON. */
  ask(text: string): void {
    console.error(text)
  }

  warn(text: string): void {
    console.error(`${this.#paint('33', 'warning:')} ${text}`)
  }

  error(message: string, code: string, hint: string | undefined): void {
    if (this.json) console.error(JSON.stringify({ error: { code, message, ...(hint ? { hint } : {}) } }))
    else console.error(`${this.#paint('31', 'error:')} ${message} (${code})${hint ? `\n  ${hint}` : ''}`)
  }

  /** For parts of a result. */
  dim(text: string): string {
    return this.#paint('2', text, process.stdout)
  }

  bold(text: string): string {
    return this.#paint('1', text, process.stdout)
  }

  /** For notes that others stand below. */
  heading(text: string): string {
    return this.#paint('1', text)
  }

  /** For parts of a result; colours on a terminal only. */
  colored(color: 'green' | 'yellow' | 'red', text: string): string {
    return this.#paint({ green: '32', yellow: '33', red: '31' }[color], text, process.stdout)
  }

  /** One character for how a check went. */
  mark(status: 'ok' | 'warn' | 'fail' | 'off'): string {
    const [color, sign] = { ok: ['32', '✓'], warn: ['33', '!'], fail: ['31', '✗'], off: ['2', '·'] }[status]
    return this.#paint(color ?? '', sign ?? '', process.stdout)
  }

  progress(first: string): Progress {
    if (process.stderr.isTTY !== true) return new LineProgress(first)
    return new SpinnerProgress(first, this.#color)
  }

  /** For waits of a moment: nothing but a spinner, and without a terminal nothing at all. */
  spinner(text: string): Progress {
    return process.stderr.isTTY === true ? this.progress(text) : silent
  }

  #paint(code: string, text: string, stream: { readonly isTTY?: boolean } = process.stderr): string {
    return this.#color && stream.isTTY === true ? `\u001b[${code}m${text}\u001b[0m` : text
  }
}

class LineProgress implements Progress {
  #last = ''

  constructor(first: string) {
    this.update(first)
  }

  update(text: string): void {
    if (text === this.#last) return
    this.#last = text
    console.error(`› ${text}`)
  }

  done(text?: string): void {
    if (text !== undefined) console.error(text)
  }
}

class SpinnerProgress implements Progress {
  #text: string
  #frame = 0
  readonly #timer: NodeJS.Timeout
  readonly #color: boolean

  constructor(first: string, color: boolean) {
    this.#text = first
    this.#color = color
    this.#timer = setInterval(() => this.#draw(), SPINNER_INTERVAL_MS)
    this.#timer.unref()
    this.#draw()
  }

  update(text: string): void {
    this.#text = text
    this.#draw()
  }

  done(text?: string): void {
    clearInterval(this.#timer)
    process.stderr.write('\r\u001b[K')
    if (text !== undefined) console.error(text)
  }

  #draw(): void {
    const frame = SPINNER[this.#frame++ % SPINNER.length] ?? ''
    const mark = this.#color ? `\u001b[36m${frame}\u001b[0m` : frame
    const width = Math.max(20, (process.stderr.columns ?? 80) - 3)
    process.stderr.write(`\r\u001b[K${mark} ${this.#text.slice(0, width)}`)
  }
}

/** Writes bytes and waits until the reader wants more, so that nothing piles up in memory. */
export async function writeFully(stream: NodeJS.WritableStream, chunk: Uint8Array): Promise<void> {
  if (!stream.write(chunk)) await once(stream, 'drain')
}

/** Text of somebody else's, such as a file name from a capsule, so that it does nothing to the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const acting = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g
  return text.replace(acting, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** Columns padded to their widest cell. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Lines of `key  value`; absent values are left out. */
export function facts(pairs: Readonly<Record<string, string | number | undefined>>): string {
  const present = Object.entries(pairs).filter(([, value]) => value !== undefined && value !== '')
  const width = Math.max(...present.map(([key]) => key.length))
  return present.map(([key, value]) => `${key.padEnd(width)}  ${value}`).join('\n')
}
