import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { AppError, isErrno } from '@wrenn/base'
import type { ProcessEvent } from '@wrenn/protocol/guest'

type Event = ProcessEvent['event']
type Data = Extract<Event, { case: 'data' }>['value']['output']
type DataCase = Exclude<Data['case'], undefined>

const MESSAGE = 'process.ProcessEvent'
const COMMAND_NOT_FOUND = 127
const TERMINAL_CONTINUE_MS = 20
const CANNOT_RUN = 126

export interface FakeProcessOptions {
  readonly cmd: string
  readonly args: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  readonly cwd: string
  readonly tag: string | undefined
  readonly stdin: boolean
  readonly timeoutMs: number
  readonly pty: { readonly cols: number; readonly rows: number } | undefined
  readonly foreground: boolean
}

interface Chunk {
  readonly offset: number
  readonly kind: DataCase
  readonly bytes: Buffer
}

/** All that a copy of a process starts from. */
export interface ProcessImage {
  readonly options: FakeProcessOptions
  readonly pid: number
  readonly startedAtMs: number
  readonly chunks: readonly Chunk[]
  readonly inputs: readonly Uint8Array[]
  readonly inputEnded: boolean
  readonly remainingMs: number | undefined
  readonly end: Extract<Event, { case: 'end' }> | undefined
}

/**
 * A local child process whose output is kept from its first byte, so that followers may come late and come back. It can
 * stand still (SIGSTOP), and be copied: a copy is the same command started again with the same input, whose output counts
 * only once it is past what the original had printed. So copies go on like the original as far as they are deterministic.
 */
export class FakeProcess {
  readonly options: FakeProcessOptions
  readonly startedAtMs: number
  readonly #chunks: Chunk[]
  readonly #inputs: Uint8Array[]
  readonly #changed = new EventEmitter().setMaxListeners(0)
  /** Bytes of each kind that a copy prints again. */
  readonly #repeated = new Map<DataCase, number>()
  #child: ChildProcess | undefined
  #pid: number
  #inputEnded: boolean
  #timer: NodeJS.Timeout | undefined
  #timerStartedAtMs = 0
  #remainingMs: number | undefined
  #terminalTimer: NodeJS.Timeout | undefined
  #end: Extract<Event, { case: 'end' }> | undefined
  #offset = 0
  #timedOut = false

  /** Stands still until `run`. */
  constructor(options: FakeProcessOptions, past?: ProcessImage) {
    this.options = options
    this.startedAtMs = past?.startedAtMs ?? Date.now()
    this.#pid = past?.pid ?? 0
    this.#chunks = [...(past?.chunks ?? [])]
    this.#inputs = [...(past?.inputs ?? [])]
    this.#inputEnded = past?.inputEnded ?? false
    this.#remainingMs = past === undefined ? options.timeoutMs || undefined : past.remainingMs
    this.#end = past?.end
    for (const { kind, bytes } of this.#chunks) {
      this.#offset += bytes.length
      this.#repeated.set(kind, (this.#repeated.get(kind) ?? 0) + bytes.length)
    }
  }

  /** Its number in the guest: a copy keeps that of its original. */
  get pid(): number {
    return this.#pid
  }

  /** Starts it, or lets it go on after `freeze`. */
  run(): this {
    if (!this.running) return this
    if (this.#child === undefined) this.#spawn()
    else {
      signalTree(this.#child.pid, constants.signals.SIGCONT)
      this.#child.stdout?.resume()
      this.#child.stderr?.resume()
      this.#keepTerminalGoing(this.#child.pid)
    }
    if (this.#remainingMs !== undefined) {
      this.#timerStartedAtMs = Date.now()
      this.#timer = setTimeout(() => this.#expire(), this.#remainingMs)
    }
    return this
  }

  /** From now on it prints nothing, and its deadline stands still. */
  freeze(): void {
    if (!this.running || this.#child === undefined) return
    clearInterval(this.#terminalTimer)
    signalTree(this.#child.pid, constants.signals.SIGSTOP)
    this.#child.stdout?.pause()
    this.#child.stderr?.pause()
    if (this.#timer === undefined || this.#remainingMs === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#remainingMs = Math.max(1, this.#remainingMs - (Date.now() - this.#timerStartedAtMs))
  }

  /** `script` stops itself when it learns that its command was stopped, which may be after both were continued. */
  #keepTerminalGoing(pid: number | undefined): void {
    if (this.options.pty === undefined || pid === undefined) return
    clearInterval(this.#terminalTimer)
    this.#terminalTimer = setInterval(() => signalOne(pid, constants.signals.SIGCONT), TERMINAL_CONTINUE_MS)
  }

  image(): ProcessImage {
    return {
      options: this.options,
      pid: this.#pid,
      startedAtMs: this.startedAtMs,
      chunks: [...this.#chunks],
      inputs: [...this.#inputs],
      inputEnded: this.#inputEnded,
      remainingMs: this.#remainingMs,
      end: this.#end,
    }
  }

  #spawn(): void {
    const { cmd, args, cwd, envs, pty } = this.options
    const [file, argv] = pty === undefined ? [cmd, [...args]] : inTerminal(cmd, args, pty)
    const child = spawnAnyway(file, argv, {
      cwd: existsSync(cwd) ? cwd : '/',
      env: { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: cwd, USER: 'root', ...envs, ...(pty && { TERM: 'xterm' }) },
      stdio: [this.options.stdin || pty !== undefined ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#child = child
    if (this.#pid === 0) this.#pid = child.pid ?? 1
    child.stdin?.on('error', () => {}) // a reader that ended early
    this.#collect(child.stdout, pty === undefined ? 'stdout' : 'pty')
    this.#collect(child.stderr, pty === undefined ? 'stderr' : 'pty')
    child.once('error', () => this.#failed())
    child.once('close', (code, signal) => this.#ended(code, signal))
    for (const bytes of this.#inputs) child.stdin?.write(bytes)
    if (this.#inputEnded) child.stdin?.end()
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
    let position = from ?? this.#offset
    const start = { pid: this.pid, offset: BigInt(position), ...(tag && { tag }) }
    yield { case: 'start', value: { $typeName: `${MESSAGE}.StartEvent`, ...start } }
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
    const stdin = this.#child?.stdin
    if (!this.running || !stdin) throw new AppError('process_not_found', 'The process has no input.')
    this.#inputs.push(bytes)
    stdin.write(bytes)
  }

  closeStdin(): void {
    this.#inputEnded = true
    this.#child?.stdin?.end()
  }

  signal(number: number): void {
    if (!this.running) throw new AppError('process_not_found', 'The process has ended.')
    if (this.#child?.pid !== undefined) signalOne(-this.#child.pid, number)
  }

  resize(cols: number, rows: number): void {
    if (this.options.pty === undefined) throw new AppError('invalid_request', 'The process has no terminal.')
    const tty = this.#child?.pid === undefined ? undefined : terminalOf(this.#child.pid)
    if (tty !== undefined) spawn('stty', ['-F', tty, 'cols', String(cols), 'rows', String(rows)], { stdio: 'ignore' })
  }

  /** Ends it with its whole tree, also while it stands still; resolves when it is gone. */
  async kill(): Promise<void> {
    clearTimeout(this.#timer)
    const child = this.#child
    if (!this.running || child === undefined) return
    const gone = new Promise((resolve) => child.once('close', resolve).once('error', resolve))
    signalTree(child.pid, constants.signals.SIGKILL)
    child.stdout?.resume()
    child.stderr?.resume()
    await gone
  }

  #collect(stream: NodeJS.ReadableStream | null, kind: DataCase): void {
    stream?.on('data', (all: Buffer) => {
      const repeated = Math.min(all.length, this.#repeated.get(kind) ?? 0)
      this.#repeated.set(kind, (this.#repeated.get(kind) ?? 0) - repeated)
      const bytes = all.subarray(repeated)
      if (bytes.length === 0) return
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
    if (signal.aborted) return
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
    void this.kill()
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
    clearInterval(this.#terminalTimer)
    clearTimeout(this.#timer)
    const offset = BigInt(this.#offset)
    this.#end = {
      case: 'end',
      value: { $typeName: `${MESSAGE}.EndEvent`, ...end, offset, timedOut: this.#timedOut, oomKilled: false },
    }
    this.#changed.emit('change')
  }
}

/** Node throws what makes a command line impossible for the kernel; a process that fails stands in, as in a guest. */
function spawnAnyway(file: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  try {
    return spawn(file, args, options)
  } catch (error) {
    if (!isErrno(error, 'ENAMETOOLONG', 'E2BIG')) throw error
    return spawn('/bin/sh', ['-c', `exit ${CANNOT_RUN}`], options)
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

/** Parents first, so that nothing can be started behind its back. What left both its group and its parent is missed. */
function signalTree(pid: number | undefined, signal: number): void {
  if (pid === undefined) return
  if (signal !== constants.signals.SIGSTOP) for (const child of childrenOf(pid)) signalTree(child, signal)
  signalOne(-pid, signal)
  signalOne(pid, signal)
  if (signal === constants.signals.SIGSTOP) for (const child of childrenOf(pid)) signalTree(child, signal)
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    )
  } catch {
    return [] // ended in the meantime
  }
}

function signalOne(pid: number, signal: number): void {
  try {
    process.kill(pid, signal)
  } catch {
    // ended in the meantime, or not the leader of a group
  }
}
