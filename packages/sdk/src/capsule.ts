import type * as wire from '@wrenn/protocol'
import { withinAwakeTime } from './awake-time.js'
import { randomName, toBase64 } from './bytes.js'
import { type CheckpointRef, Checkpoints, type DiffOptions, refOf } from './checkpoints.js'
import { capsuleInfo, capsuleMetrics, execResult, metricsHistory, processInfo, templateInfo } from './convert.js'
import { Egress } from './egress.js'
import { Files } from './files.js'
import { bodyOf, type LifecycleOptions, perform, type ResumeOptions } from './lifecycle.js'
import { type Opening, opening } from './opening.js'
import { type PortsInfo, portHost, portsInfo, portUrl } from './ports.js'
import { openSession, ProcessHandle, PtyHandle } from './process.js'
import type { ConnectionState, SessionPlan } from './session.js'
import type { CallOptions, Transport } from './transport.js'
import type {
  CapsuleInfo,
  CapsuleMetrics,
  CheckpointInfo,
  ExecResult,
  FileChange,
  MetricsHistory,
  MetricsRange,
  PortAccess,
  ProcessInfo,
  SignalName,
  TemplateInfo,
  Timing,
} from './types.js'
import { wholeSeconds } from './wait.js'

/** A string is a line for `/bin/sh -c`; an array is a program and its arguments, run as they are. */
export type Command = string | readonly [command: string, ...args: string[]]

/** Where, as whom and with what a command runs. None of these changes the capsule's own defaults. */
export interface ProcessOptions {
  /**
   * Added to the capsule's environment; the same name replaces. 128 KiB each with its name, 2 MiB together with the
   * arguments.
   */
  readonly envs?: Readonly<Record<string, string>>
  /** Must exist; relative to the user's home. @default the `cwd` that the capsule was created with, else the user's home */
  readonly cwd?: string
  /** A name of the guest's `/etc/passwd`, or `uid` or `uid:gid`. @default the capsule's user, else root */
  readonly user?: string
}
/**
 * How a command that is waited for runs. Its output is kept up to a limit; for more, or to see it as it comes, use `stream`.
 */
export interface ExecOptions extends ProcessOptions, CallOptions {
  /** Kills it and its children after this time in which the capsule was awake; 0 means never. @default 30_000 */
  readonly timeoutMs?: number
  /** What it reads; then its input ends. @default no input */
  readonly stdin?: string | Uint8Array
  /**
   * All or nothing: when the command fails, times out or is killed, memory, files and processes are as before it.
   * @default false
   */
  readonly atomic?: boolean
}
/** How long and how patiently a process is listened to. None of these ends the process. */
export interface FollowOptions {
  /** Ends the connection, not the process. */
  readonly signal?: AbortSignal
  /** How long a dropped connection is tried again; time in which the capsule is paused does not count. @default 60_000 */
  readonly reconnectMs?: number
  /** Told when the connection drops and comes back, and when the capsule is paused and goes on. */
  readonly onConnection?: (state: ConnectionState) => void
}
/**
 * How a command that is followed runs; unlike {@link ExecOptions} without a deadline of its own and with its input closed.
 */
export interface StreamOptions extends ProcessOptions, FollowOptions {
  /** Kill it after this time; 0 means never. @default 0 */
  readonly timeoutMs?: number
  /** Keep its input open for `write`. @default false */
  readonly stdin?: boolean
  /** Your name for it. @default a random one */
  readonly tag?: string
}
/** How a command that is left alone runs. Its output is kept in the capsule, within a limit, for whoever attaches later. */
export interface StartOptions extends ProcessOptions, CallOptions {
  /** Kills it and its children after this time in which the capsule was awake. @default 0 (never) */
  readonly timeoutMs?: number
  /** Your name for it, unique among those that run: letters, digits and `. _ : -`, not digits alone. @default a random one */
  readonly tag?: string
}
/** From where on a process that runs already is followed. */
export interface AttachOptions extends FollowOptions {
  /**
   * Replay output from this byte, counted over all streams together: `offset` plus length of the last event seen. Bytes that
   * are no longer kept come as one `lost` event. With it a paused capsule is waited for.
   * @default only what comes from now on; a paused capsule without `autoResume` is then InvalidStateError
   */
  readonly fromOffset?: number
}
/** What runs in a terminal and how large that is. It outlives the connection: come back with `attachPty(tag)`. */
export interface PtyOptions extends ProcessOptions, FollowOptions {
  /** @default /bin/bash */
  readonly command?: readonly [command: string, ...args: string[]]
  /** Columns, 1 to 65535. @default 80 */
  readonly cols?: number
  /** Lines, 1 to 65535. @default 24 */
  readonly rows?: number
  /** The name to come back by. @default a random one */
  readonly tag?: string
}

/** What of a capsule may change while it lives; what is absent stays. */
export interface UpdateOptions extends CallOptions {
  /** `null` takes the name away. */
  readonly name?: string | null
  /** Replaces all labels. */
  readonly labels?: Readonly<Record<string, string>>
  /** Pause it after this time without activity; 0 means never. */
  readonly idleTimeoutMs?: number
  /** Whether using it wakes it while it is paused. */
  readonly autoResume?: boolean
  /** Private ports get a token; public and then private again: a new one. What is open stays open. */
  readonly portAccess?: PortAccess
}
/** What the copies have of their own; memory, processes, files and size are those of the source. */
export interface ForkOptions extends LifecycleOptions {
  /** 1 to 100 copies, all or none. @default 1 */
  readonly count?: number
  /** Name of the copies; with several, `-1`, `-2`, … is added. */
  readonly name?: string
  /** @default those of the source */
  readonly labels?: Readonly<Record<string, string>>
  /** Added to the environment of the source. */
  readonly envs?: Readonly<Record<string, string>>
  /** @default that of the source */
  readonly idleTimeoutMs?: number
  /** As the source was at this checkpoint of it. @default as it is */
  readonly checkpoint?: CheckpointRef
}
/** Of what moment a template is made. */
export interface SnapshotOptions extends LifecycleOptions {
  /** As the capsule was at this checkpoint of it. @default as it is */
  readonly checkpoint?: CheckpointRef
}
/** The copies, and how long the source stood still for them. */
export type Forks = readonly Capsule[] & { readonly pauseWindowMs: number; readonly timings: readonly Timing[] }

const EXEC_TIMEOUT_MS = 30_000
/** An answer may come this much after the command's own deadline: waking, killing and collecting take time too. */
const EXEC_GRACE_MS = 30_000
/** Node.js' fetch gives up where no answer begins for five minutes; interim answers keep it waiting. */
const PREFER_SIGNS = { prefer: 'processing' }
/** A checkpoint before the command and the way back after it. */
const ATOMIC_GRACE_MS = 120_000

function commandFields(command: Command): { cmd: string; args: string[] } {
  if (typeof command === 'string') return { cmd: '/bin/sh', args: ['-c', command] }
  const [cmd, ...args] = command
  return { cmd, args }
}

/** One capsule. Disposing destroys it. */
export class Capsule implements AsyncDisposable {
  /** `cl-` and 25 letters and digits; enough to find it again with `capsules.get`. */
  readonly id: string
  /** Its files; using them wakes it where `autoResume` is set. */
  readonly files: Files
  /** What it may reach. */
  readonly egress: Egress
  readonly #transport: Transport
  readonly #path: string
  readonly #checkpoints: Checkpoints
  #info: CapsuleInfo

  constructor(transport: Transport, info: CapsuleInfo) {
    this.id = info.id
    this.files = new Files(transport, info.id)
    this.#transport = transport
    this.#path = `/v1/capsules/${info.id}`
    this.egress = new Egress(transport, this.#path)
    this.#checkpoints = new Checkpoints(transport, this.#path)
    this.#info = info
  }

  /** As last seen; {@link refresh} asks again. */
  get info(): CapsuleInfo {
    return this.#info
  }

  /** Asks the platform and keeps the answer as {@link info}. Does not count as activity. @throws CapsuleNotFoundError */
  async refresh(options: CallOptions = {}): Promise<CapsuleInfo> {
    return this.#seen(await this.#transport.json<wire.Capsule>('GET', this.#path, options))
  }

  /**
   * Runs a command to its end and gives its output. A command that fails is a result, not an error: look at `exitCode`, and
   * with `atomic` at `rolledBack`. Where the guest dies there is no result, but the error `guest_died`; with `atomic` its
   * `details.rolled_back` says that the capsule runs again as before.
   * @example
   * const { stdout } = await capsule.exec('ls | wc -l')
   * const { exitCode } = await capsule.exec(['python3', '-c', program], { timeoutMs: 5000 })
   * const { rolledBack } = await capsule.exec('./migrate.sh', { atomic: true })
   */
  async exec(command: Command, options: ExecOptions = {}): Promise<ExecResult> {
    const { envs, cwd, user, stdin, atomic, timeoutMs = EXEC_TIMEOUT_MS, ...call } = options
    const input = stdin instanceof Uint8Array ? { stdin: toBase64(stdin), stdin_encoding: 'base64' } : { stdin }
    const json = { ...commandFields(command), envs, cwd, user, ...input, timeout_sec: timeoutMs / 1000, atomic }
    const ask = (more: CallOptions) =>
      this.#transport.json<wire.ExecResult>('POST', `${this.#path}/exec`, { ...more, json, headers: PREFER_SIGNS })
    if (timeoutMs === 0 || call.requestTimeoutMs !== undefined) {
      return execResult(await ask({ requestTimeoutMs: 0, ...call }))
    }
    const limitMs = timeoutMs + EXEC_GRACE_MS + (atomic ? ATOMIC_GRACE_MS : 0)
    const askState = async (signal: AbortSignal) => (await this.refresh({ signal })).state
    const result = await withinAwakeTime({ limitMs, askState, signal: call.signal }, (signal) =>
      ask({ signal, requestTimeoutMs: 0 }),
    )
    return execResult(result)
  }

  /**
   * Runs a command and follows it: every byte of output, input, signals; dropped connections are picked up where they broke.
   * @example
   * for await (const event of capsule.stream('make')) if (event.type === 'stdout') process.stdout.write(event.data)
   * const cat = await capsule.stream('cat', { stdin: true })
   */
  stream(command: Command, options: StreamOptions = {}): Opening<ProcessHandle> {
    const { envs, cwd, user, stdin = false, timeoutMs = 0, tag = randomName('proc'), ...follow } = options
    const process = { ...commandFields(command), envs, cwd, user, timeout_sec: timeoutMs / 1000, tag }
    const frame = { type: 'start', ...process, stdin, encoding: 'base64' }
    const start = { path: `${this.#path}/exec/stream`, frame }
    return this.#openProcess('stream', this.#processPlan(tag, follow, start))
  }

  /**
   * Starts a command and leaves it running: it outlives this connection and this client.
   * @example
   * const { tag } = await capsule.start('python3 -m http.server', { tag: 'web' })
   * for await (const event of capsule.attach(tag, { fromOffset: 0 })) console.log(event)
   * @throws WrennError `file_not_found` for an unknown program, `conflict` for a tag that is in use
   */
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
  attach(process: number | string, options: AttachOptions = {}): Opening<ProcessHandle> {
    const { fromOffset, ...follow } = options
    const plan = this.#processPlan(String(process), follow, undefined)
    return this.#openProcess('attach', fromOffset === undefined ? plan : { ...plan, fromOffset })
  }

  #openProcess(call: string, plan: SessionPlan): Opening<ProcessHandle> {
    const handle = openSession(this.#transport, plan).then((session) => new ProcessHandle(session))
    return opening(call, ProcessHandle, handle)
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

  /**
   * Opens a terminal. Disposing it kills what runs in it; `disconnect` leaves it for `attachPty`.
   * @example
   * await using terminal = await capsule.pty({ cols: 120, rows: 40 })
   * await terminal.write('top\r')
   * for await (const event of terminal) if (event.type === 'output') process.stdout.write(event.data)
   */
  pty(options: PtyOptions = {}): Opening<PtyHandle> {
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
    return this.#openPty('pty', tag, follow, { path: `${this.#path}/pty`, frame })
  }

  /** Comes back to a terminal by its tag. */
  attachPty(tag: string, options: AttachOptions = {}): Opening<PtyHandle> {
    return this.#openPty('attachPty', tag, options, undefined)
  }

  #openPty(call: string, tag: string, follow: AttachOptions, start: SessionPlan['start']): Opening<PtyHandle> {
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
    const handle = openSession(this.#transport, plan).then((session) => new PtyHandle(session))
    return opening(call, PtyHandle, handle)
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

  /**
   * Saves memory, processes and disk as they are and gives the machine back. Streams and terminals stay open and go on after
   * the resume.
   * @example
   * await capsule.pause()
   * const later = await wrenn.capsules.get(capsule.id)
   * await later.exec('date') // wakes it, with `autoResume`
   * @throws InvalidStateError; TimeoutError after `timeoutMs`
   */
  async pause(options: LifecycleOptions = {}): Promise<CapsuleInfo> {
    return await this.#move('pause', ['pausing'], options)
  }

  /**
   * Stores it away from its host, which keeps nothing of it; a running one is paused first. It is resumed, or used with `autoResume`, like a paused
   * one, on any host; that takes longer. Until it is stored it can be resumed, which ends this with `conflict`.
   * @example
   * await capsule.hibernate({ timeoutMs: 10 * 60_000 })
   * @throws InvalidStateError, also while it has checkpoints, which stay on their host; WrennError `conflict` when it was used meanwhile,
   * `not_supported` without an object store; TimeoutError after `timeoutMs`, while the work goes on
   */
  async hibernate(options: LifecycleOptions = {}): Promise<CapsuleInfo> {
    return await this.#move('hibernate', ['pausing', 'paused'], options)
  }

  /**
   * Lets it run on where it was paused, or hibernated. With `autoResume`, using it does the same. `from: 'disk'` starts it from its files
   * instead, without its memory and processes: the way out where its memory cannot be loaded.
   * @throws StateNotLoadableError; InvalidStateError
   * @example
   * await capsule.resume().catch((error) => {
   *   if (!(error instanceof StateNotLoadableError)) throw error
   *   return capsule.resume({ from: 'disk' })
   * })
   */
  async resume(options: ResumeOptions = {}): Promise<CapsuleInfo> {
    const { from, ...rest } = options
    return await this.#move('resume', ['resuming'], rest, from)
  }

  async #move(
    verb: 'pause' | 'resume' | 'hibernate',
    onTheWay: readonly CapsuleInfo['state'][],
    options: LifecycleOptions,
    from?: ResumeOptions['from'],
  ) {
    const isDone = ({ state }: wire.Capsule): boolean => !onTheWay.includes(state)
    const path = `${this.#path}/${verb}`
    const operation = { what: `The ${verb}`, path, isDone, ...bodyOf(from) }
    return this.#seen(await perform<wire.Capsule>(this.#transport, operation, options))
  }

  #seen(answer: wire.Capsule): CapsuleInfo {
    this.#info = capsuleInfo(answer)
    return this.#info
  }

  /**
   * Changes what is given and leaves the rest. A new idle timeout counts from now.
   * @example
   * await capsule.update({ idleTimeoutMs: 10 * 60_000, labels: { job: '42' } })
   * @throws InvalidStateError once it is being destroyed
   */
  async update(options: UpdateOptions): Promise<CapsuleInfo> {
    const { name, labels, idleTimeoutMs, autoResume, portAccess, ...call } = options
    const timeout_sec = idleTimeoutMs === undefined ? undefined : wholeSeconds(idleTimeoutMs)
    const json = { name, labels, timeout_sec, auto_resume: autoResume, port_access: portAccess }
    return this.#seen(await this.#transport.json<wire.Capsule>('PATCH', this.#path, { ...call, json }))
  }

  /** How its ports are reached: who may, below which domain, and with which token. */
  async ports(options: CallOptions = {}): Promise<PortsInfo> {
    return portsInfo(await this.#transport.json<wire.Ports>('GET', `${this.#path}/ports`, options))
  }

  /**
   * The host name, and port, of whatever listens on a port of it: 0.0.0.0, 127.0.0.1 or ::1. Using it wakes the capsule where
   * `autoResume` is set.
   * @example
   * const socket = new WebSocket(`ws://${await capsule.getHost(8080)}/`)
   */
  async getHost(port: number, options: CallOptions = {}): Promise<string> {
    return portHost(this.id, port, await this.ports(options))
  }

  /**
   * The URL of a port, to open in a browser: with the token where its ports are private, which the browser then keeps as a cookie.
   * @example
   * await capsule.start('python3 -m http.server 8080')
   * console.log(await capsule.url(8080))
   */
  async url(port: number, options: CallOptions = {}): Promise<string> {
    return portUrl(this.#transport.options.apiUrl, this.id, port, await this.ports(options))
  }

  /**
   * Makes running copies of it, memory and processes included; it stands still for milliseconds and goes on. All or none.
   * With a checkpoint they are as it was then, and it does not stand still.
   * @example
   * const [copy] = await capsule.fork()
   * const forks = await capsule.fork({ count: 10, name: 'try' })
   * const [old] = await capsule.fork({ checkpoint: 'before-upgrade' })
   * @throws CheckpointNotFoundError; InvalidStateError
   */
  async fork(options: ForkOptions = {}): Promise<Forks> {
    const { count, name, labels, envs, idleTimeoutMs, checkpoint: point, ...call } = options
    const timeout_sec = idleTimeoutMs === undefined ? undefined : wholeSeconds(idleTimeoutMs)
    const checkpoint = point === undefined ? undefined : refOf(point)
    const json = { count, name, labels, envs, timeout_sec, checkpoint }
    const operation = { what: 'The fork', path: `${this.#path}/fork`, json }
    const answer = await perform<wire.ForkResult>(this.#transport, operation, call)
    const copies = answer.capsules.map((copy) => new Capsule(this.#transport, capsuleInfo(copy)))
    return Object.assign(copies, { pauseWindowMs: answer.pause_window_ms, timings: answer.timings })
  }

  /**
   * Saves a point in time to go back to; the capsule runs on.
   * @example
   * const before = await capsule.checkpoint('before-upgrade')
   * const { exitCode } = await capsule.exec('apt-get -y upgrade', { timeoutMs: 600_000 })
   * if (exitCode !== 0) await capsule.rollback(before)
   * @default name checkpoint-1, -2, …
   * @throws WrennError `conflict` for a name that the capsule has; InvalidStateError
   */
  async checkpoint(name?: string, options: LifecycleOptions = {}): Promise<CheckpointInfo> {
    return await this.#checkpoints.create(name, options)
  }

  /** Oldest first; they form a tree by `parentId`. */
  async checkpoints(options: CallOptions = {}): Promise<CheckpointInfo[]> {
    return await this.#checkpoints.list(options)
  }

  /** @throws CheckpointNotFoundError */
  async deleteCheckpoint(checkpoint: CheckpointRef, options: CallOptions = {}): Promise<void> {
    await this.#checkpoints.delete(checkpoint, options)
  }

  /**
   * Goes back to a checkpoint: memory, processes and files as they were then, under the same id. Streams of processes that
   * did not run then end with the error `rolled_back`. A capsule that had ended by itself (`error`) runs again. `from: 'disk'`
   * brings back its files only.
   * @throws CheckpointNotFoundError; StateNotLoadableError; InvalidStateError
   */
  async rollback(checkpoint: CheckpointRef, options: ResumeOptions = {}): Promise<CapsuleInfo> {
    const { from, ...rest } = options
    const path = `${this.#checkpoints.pathOf(checkpoint)}/rollback`
    // Its state is the same before, meanwhile and afterwards; only the end has steps to tell of.
    const isDone = (answer: wire.Capsule): boolean => answer.lifecycle_timings !== undefined
    const operation = { what: 'The rollback', path, isDone, ...bodyOf(from) }
    return this.#seen(await perform<wire.Capsule>(this.#transport, operation, rest))
  }

  /**
   * Files that differ between two checkpoints, or between one and now; sorted by path, asked for page by page.
   * @example
   * for await (const { change, path } of capsule.diff('before', 'current', { path: '/etc' })) console.log(change, path)
   */
  diff(
    from: CheckpointRef,
    to: CheckpointRef | 'current' = 'current',
    options: DiffOptions = {},
  ): AsyncGenerator<FileChange, void, undefined> {
    return this.#checkpoints.diff(from, to, options)
  }

  /**
   * A file as it was at a checkpoint, or as it is now (`current`), also while the capsule sleeps. Symbolic links are not followed.
   * @example
   * const before = new TextDecoder().decode(await capsule.readAt('before', '/etc/hosts'))
   * @throws CheckpointNotFoundError; FileNotFoundError; WrennError `too_large` above 1 MiB, `is_a_directory`
   */
  readAt(point: CheckpointRef | 'current', path: string, options: CallOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#checkpoints.readFile(point, path, options)
  }

  /**
   * Makes a template of it, from which new capsules start warm. It stays as it was. With a checkpoint: of how it was then.
   * @example
   * const { name } = await capsule.snapshot('with-dependencies')
   * const copy = await wrenn.capsules.create({ template: name })
   * @throws WrennError `name_reserved`, `template_name_taken`; CheckpointNotFoundError; InvalidStateError
   * @default name template- and 8 hexadecimal digits
   */
  async snapshot(name?: string, options: SnapshotOptions = {}): Promise<TemplateInfo> {
    const { checkpoint: point, ...call } = options
    const checkpoint = point === undefined ? undefined : refOf(point)
    const operation = { what: 'The snapshot', path: '/v1/snapshots', json: { capsule_id: this.id, name, checkpoint } }
    return templateInfo(await perform<wire.Template>(this.#transport, operation, call))
  }

  /** Counts as activity: the idle timeout starts anew. @throws InvalidStateError unless it runs */
  async ping(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('POST', `${this.#path}/ping`, { ...options, idempotent: true })
  }

  /** What it uses now, seen from inside and from its host. @throws InvalidStateError unless it runs */
  async metrics(options: CallOptions = {}): Promise<CapsuleMetrics> {
    return capsuleMetrics(await this.#transport.json<wire.CapsuleMetrics>('GET', `${this.#path}/metrics`, options))
  }

  /**
   * What it has used, up to the last seconds, whether it runs or not. Nobody asks its guest.
   * @example
   * const { points } = await capsule.metricsHistory('1h')
   * const peak = Math.max(...points.map(({ cpuMaxPct }) => cpuMaxPct))
   */
  async metricsHistory(range: MetricsRange = '10m', options: CallOptions = {}): Promise<MetricsHistory> {
    const path = `${this.#path}/metrics?range=${range}&current=false`
    return metricsHistory(await this.#transport.json<wire.CapsuleMetrics>('GET', path, options))
  }

  /** Ends it for good, with its memory and disk. Doing it twice is fine. */
  async destroy(options: CallOptions = {}): Promise<void> {
    await this.#transport.send('DELETE', this.#path, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy()
  }
}
