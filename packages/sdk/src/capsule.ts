import type * as wire from '@wrenn/protocol'
import { randomName, toBase64 } from './bytes.js'
import { capsuleInfo, capsuleMetrics, execResult, processInfo } from './convert.js'
import { Files } from './files.js'
import { openSession, ProcessHandle, PtyHandle } from './process.js'
import type { SessionPlan } from './session.js'
import type { CallOptions, Transport } from './transport.js'
import type { CapsuleInfo, CapsuleMetrics, ExecResult, ProcessInfo, SignalName } from './types.js'

/** A string is a line for `/bin/sh -c`; an array is a program and its arguments, run as they are. */
export type Command = string | readonly [command: string, ...args: string[]]

export interface ProcessOptions {
  /** Added to the capsule's environment. */
  readonly envs?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly user?: string
}
export interface ExecOptions extends ProcessOptions, CallOptions {
  /** Kill it after this time; 0 means never. @default 30_000 */
  readonly timeoutMs?: number
  /** What it reads; then its input ends. @default no input */
  readonly stdin?: string | Uint8Array
}
export interface FollowOptions {
  /** Ends the connection, not the process. */
  readonly signal?: AbortSignal
  /** How long a dropped connection is tried again. @default 60_000 */
  readonly reconnectMs?: number
  readonly onConnection?: (state: 'lost' | 'restored') => void
}
export interface StreamOptions extends ProcessOptions, FollowOptions {
  /** Kill it after this time; 0 means never. @default 0 */
  readonly timeoutMs?: number
  /** Keep its input open for `write`. @default false */
  readonly stdin?: boolean
  /** Your name for it. @default a random one */
  readonly tag?: string
}
export interface StartOptions extends ProcessOptions, CallOptions {
  /** @default 0 (never) */
  readonly timeoutMs?: number
  readonly tag?: string
}
export interface AttachOptions extends FollowOptions {
  /** Replay output from this byte. @default only what comes from now on */
  readonly fromOffset?: number
}
export interface PtyOptions extends ProcessOptions, FollowOptions {
  /** @default /bin/bash */
  readonly command?: readonly [command: string, ...args: string[]]
  /** @default 80 */
  readonly cols?: number
  /** @default 24 */
  readonly rows?: number
  readonly tag?: string
}

const EXEC_TIMEOUT_MS = 30_000
/** An answer may come this much after the command's own deadline: killing and collecting take time too. */
const EXEC_GRACE_MS = 15_000

function commandFields(command: Command): { cmd: string; args: string[] } {
  if (typeof command === 'string') return { cmd: '/bin/sh', args: ['-c', command] }
  const [cmd, ...args] = command
  return { cmd, args }
}

/** One capsule. Disposing destroys it. */
export class Capsule implements AsyncDisposable {
  readonly id: string
  readonly files: Files
  readonly #transport: Transport
  readonly #path: string
  #info: CapsuleInfo

  constructor(transport: Transport, info: CapsuleInfo) {
    this.id = info.id
    this.files = new Files(transport, info.id)
    this.#transport = transport
    this.#path = `/v1/capsules/${info.id}`
    this.#info = info
  }

  /** As last seen; {@link refresh} asks again. */
  get info(): CapsuleInfo {
    return this.#info
  }

  async refresh(options: CallOptions = {}): Promise<CapsuleInfo> {
    this.#info = capsuleInfo(await this.#transport.json<wire.Capsule>('GET', this.#path, options))
    return this.#info
  }

  /**
   * Runs a command to its end and gives its output. A command that fails is a result, not an error: look at `exitCode`.
   * @example
   * const { stdout } = await capsule.exec('ls | wc -l')
   * const { exitCode } = await capsule.exec(['python3', '-c', program], { timeoutMs: 5000 })
   */
  async exec(command: Command, options: ExecOptions = {}): Promise<ExecResult> {
    const { envs, cwd, user, stdin, timeoutMs = EXEC_TIMEOUT_MS, ...call } = options
    const input = stdin instanceof Uint8Array ? { stdin: toBase64(stdin), stdin_encoding: 'base64' } : { stdin }
    const result = await this.#transport.json<wire.ExecResult>('POST', `${this.#path}/exec`, {
      requestTimeoutMs: timeoutMs === 0 ? 0 : timeoutMs + EXEC_GRACE_MS,
      ...call,
      json: { ...commandFields(command), envs, cwd, user, ...input, timeout_sec: timeoutMs / 1000 },
    })
    return execResult(result)
  }

  /**
   * Runs a command and follows it: every byte of output, input, signals; dropped connections are picked up where they broke.
   * @example
   * for await (const event of await capsule.stream('make')) if (event.type === 'stdout') process.stdout.write(event.data)
   */
  async stream(command: Command, options: StreamOptions = {}): Promise<ProcessHandle> {
    const { envs, cwd, user, stdin = false, timeoutMs = 0, tag = randomName('proc'), ...follow } = options
    const process = { ...commandFields(command), envs, cwd, user, timeout_sec: timeoutMs / 1000, tag }
    const frame = { type: 'start', ...process, stdin, encoding: 'base64' }
    const start = { path: `${this.#path}/exec/stream`, frame }
    return new ProcessHandle(await openSession(this.#transport, this.#processPlan(tag, follow, start)))
  }

  /** Starts a command and leaves it running. */
  async start(command: Command, options: StartOptions = {}): Promise<{ pid: number; tag: string }> {
    const { envs, cwd, user, timeoutMs = 0, tag = randomName('proc'), ...call } = options
    const process = { ...commandFields(command), envs, cwd, user, timeout_sec: timeoutMs / 1000, tag }
    const answer = await this.#transport.json<wire.BackgroundResult>('POST', `${this.#path}/exec`, {
      ...call,
      json: { ...process, background: true },
    })
    return { pid: answer.pid, tag: answer.tag }
  }

  /** Follows a process that runs already, by pid or tag. */
  async attach(process: number | string, options: AttachOptions = {}): Promise<ProcessHandle> {
    const { fromOffset, ...follow } = options
    const plan = this.#processPlan(String(process), follow, undefined)
    return new ProcessHandle(
      await openSession(this.#transport, fromOffset === undefined ? plan : { ...plan, fromOffset }),
    )
  }

  #processPlan(selector: string, follow: FollowOptions, start: SessionPlan['start']): SessionPlan {
    return {
      ...follow,
      capsuleId: this.id,
      selector,
      start,
      resume: (fromOffset) => ({
        path: `${this.#path}/processes/${encodeURIComponent(selector)}/stream`,
        query: { from_offset: fromOffset, encoding: 'base64' },
      }),
      inputMayBeLost: false,
      inputType: 'stdin',
    }
  }

  /** Opens a terminal. */
  async pty(options: PtyOptions = {}): Promise<PtyHandle> {
    const {
      command = ['/bin/bash'],
      cols = 80,
      rows = 24,
      envs,
      cwd,
      user,
      tag = randomName('pty'),
      ...follow
    } = options
    const [cmd, ...args] = command
    const frame = { type: 'start', cmd, args, cols, rows, envs, cwd, user, tag }
    return await this.#openPty(tag, follow, { path: `${this.#path}/pty`, frame })
  }

  /** Comes back to a terminal by its tag. */
  async attachPty(tag: string, options: AttachOptions = {}): Promise<PtyHandle> {
    return await this.#openPty(tag, options, undefined)
  }

  async #openPty(tag: string, follow: AttachOptions, start: SessionPlan['start']): Promise<PtyHandle> {
    const plan: SessionPlan = {
      ...follow,
      capsuleId: this.id,
      selector: tag,
      start,
      resume: (fromOffset) => ({
        path: `${this.#path}/pty`,
        frame: { type: 'connect', tag, from_offset: fromOffset },
      }),
      inputMayBeLost: true,
      inputType: 'input',
    }
    return new PtyHandle(await openSession(this.#transport, plan))
  }

  /** Those started through the API; `includeEnded` adds the ones whose output and exit are still kept. */
  async processes(options: CallOptions & { readonly includeEnded?: boolean } = {}): Promise<ProcessInfo[]> {
    const { includeEnded = false, ...call } = options
    const { processes } = await this.#transport.json<wire.ProcessList>('GET', `${this.#path}/processes`, {
      ...call,
      query: { include_ended: String(includeEnded) },
    })
    return processes.map(processInfo)
  }

  /** Signals a process and its children. @throws ProcessNotFoundError */
  async kill(
    process: number | string,
    options: CallOptions & { readonly signalName?: SignalName } = {},
  ): Promise<void> {
    const { signalName = 'SIGKILL', ...call } = options
    const path = `${this.#path}/processes/${encodeURIComponent(String(process))}`
    await this.#transport.send('DELETE', path, { ...call, query: { signal: signalName } })
  }

  /** Counts as activity. */
  async ping(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', `${this.#path}/ping`, { ...options, idempotent: true })
  }

  async metrics(options: CallOptions = {}): Promise<CapsuleMetrics> {
    return capsuleMetrics(await this.#transport.json<wire.CapsuleMetrics>('GET', `${this.#path}/metrics`, options))
  }

  /** Ends it for good, with its memory and disk. Doing it twice is fine. */
  async destroy(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', this.#path, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy()
  }
}
