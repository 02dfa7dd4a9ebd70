import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { AppError } from '@wrenn/base'
import type { ProcessEvent } from '@wrenn/protocol/guest'

type Event = ProcessEvent['event']
type Data = Extract<Event, { case: 'data' }>['value']['output']
type DataCase = Exclude<Data['case'], undefined>

const MESSAGE = 'process.ProcessEvent'
const COMMAND_NOT_FOUND = 127

export interface FakeProcessOptions {
  readonly cmd: string
  readonly args: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  readonly cwd: string
  readonly tag: string | undefined
  readonly stdin: boolean
  readonly timeoutMs: number
  readonly pty: { readonly cols: number; readonly rows: number } | undefined
}

/** A local child process whose output is kept from its first byte, so that followers may come late and come back. */
export class FakeProcess {
  readonly options: FakeProcessOptions
  readonly pid: number
  readonly startedAtMs = Date.now()
  readonly #child: ChildProcess
  readonly #chunks: { readonly offset: number; readonly kind: DataCase; readonly bytes: Buffer }[] = []
  readonly #changed = new EventEmitter().setMaxListeners(0)
  readonly #timer: NodeJS.Timeout | undefined
  #end: Extract<Event, { case: 'end' }> | undefined
  #offset = 0
  #timedOut = false

  constructor(options: FakeProcessOptions) {
    this.options = options
    const { cmd, args, cwd, envs, pty } = options
    const [file, argv] = pty === undefined ? [cmd, [...args]] : inTerminal(cmd, args, pty)
    this.#child = spawn(file, argv, {
      cwd,
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: cwd, USER: 'root', ...envs, ...(pty && { TERM: 'xterm' }) },
      stdio: [options.stdin || pty !== undefined ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.pid = this.#child.pid ?? 1
    this.#child.stdin?.on('error', () => {}) // a reader that ended early
    this.#collect(this.#child.stdout, pty === undefined ? 'stdout' : 'pty')
    this.#collect(this.#child.stderr, pty === undefined ? 'stderr' : 'pty')
    this.#child.once('error', () => this.#failed())
    this.#child.once('close', (code, signal) => this.#ended(code, signal))
    if (options.timeoutMs > 0) this.#timer = setTimeout(() => this.#expire(), options.timeoutMs)
  }

  get running(): boolean {
    return this.#end === undefined
  }

  get outputOffset(): number {
    return this.#offset
  }

  /** Everything from `from` on, then what comes; ends with the process. `undefined`: only what comes from now on. */
  async *follow(from: number | undefined, signal: AbortSignal): AsyncGenerator<Event> {
    const { tag } = this.options
    yield { case: 'start', value: { $typeName: `${MESSAGE}.StartEvent`, pid: this.pid, ...(tag && { tag }) } }
    let position = from ?? this.#offset
    while (!signal.aborted) {
      for (const event of this.#since(position)) {
        position = Number(event.value.offset) + (event.value.output.value?.length ?? 0)
        yield event
      }
      if (position < this.#offset) continue
      if (this.#end !== undefined) {
        yield this.#end
        return
      }
      await this.#next(signal)
    }
  }

  write(bytes: Uint8Array): void {
    const { stdin } = this.#child
    if (!this.running || stdin === null) throw new AppError('process_not_found', 'The process has no input.')
    stdin.write(bytes)
  }

  closeStdin(): void {
    this.#child.stdin?.end()
  }

  signal(number: number): void {
    if (!this.running) throw new AppError('process_not_found', 'The process has ended.')
    killGroup(this.pid, number)
  }

  resize(cols: number, rows: number): void {
    if (this.options.pty === undefined) throw new AppError('invalid_request', 'The process has no terminal.')
    const tty = terminalOf(this.pid)
    if (tty !== undefined) spawn('stty', ['-F', tty, 'cols', String(cols), 'rows', String(rows)], { stdio: 'ignore' })
  }

  kill(): void {
    if (this.running) killGroup(this.pid, constants.signals.SIGKILL)
  }

  #collect(stream: NodeJS.ReadableStream | null, kind: DataCase): void {
    stream?.on('data', (bytes: Buffer) => {
      this.#chunks.push({ offset: this.#offset, kind, bytes })
      this.#offset += bytes.length
      this.#changed.emit('change')
    })
  }

  *#since(position: number): Generator<Extract<Event, { case: 'data' }>> {
    for (const { offset, kind, bytes } of this.#chunks) {
      if (offset + bytes.length <= position) continue
      const skip = Math.max(0, position - offset)
      const output = { case: kind, value: bytes.subarray(skip) }
      yield { case: 'data', value: { $typeName: `${MESSAGE}.DataEvent`, output, offset: BigInt(offset + skip) } }
    }
  }

  async #next(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#changed.off('change', done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#changed.on('change', done)
      signal.addEventListener('abort', done)
    })
  }

  #expire(): void {
    this.#timedOut = true
    this.kill()
  }

  #failed(): void {
    this.#finish({ exitCode: COMMAND_NOT_FOUND, exited: true, status: 'exit status 127', error: 'command not found' })
  }

  #ended(code: number | null, signal: NodeJS.Signals | null): void {
    if (signal !== null) {
      const number = constants.signals[signal]
      this.#finish({ exitCode: -1, exited: false, status: `signal: ${signal}`, signal: number })
    } else {
      this.#finish({ exitCode: code ?? 0, exited: true, status: `exit status ${code ?? 0}` })
    }
  }

  #finish(end: { exitCode: number; exited: boolean; status: string; signal?: number; error?: string }): void {
    if (this.#end !== undefined) return
    clearTimeout(this.#timer)
    const offset = BigInt(this.#offset)
    this.#end = {
      case: 'end',
      value: { $typeName: `${MESSAGE}.EndEvent`, ...end, offset, timedOut: this.#timedOut, oomKilled: false },
    }
    this.#changed.emit('change')
  }
}

/** util-linux' `script` gives a command a terminal of its own. */
function inTerminal(cmd: string, args: readonly string[], { cols, rows }: { cols: number; rows: number }) {
  const line = [cmd, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ')
  return ['script', ['-qefc', `stty cols ${cols} rows ${rows}; exec ${line}`, '/dev/null']] as [string, string[]]
}

function terminalOf(pid: number): string | undefined {
  try {
    const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
    return targets.find((target) => target.startsWith('/dev/pts/'))
  } catch {
    return undefined // ended in the meantime
  }
}

function killGroup(pid: number, signal: number): void {
  try {
    process.kill(-pid, signal)
  } catch {
    // ended in the meantime
  }
}
