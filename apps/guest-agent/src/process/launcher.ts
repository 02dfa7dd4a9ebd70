import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { AppError, errorText, isErrno } from '@wrenn/base'
import type { GuestSystem } from '../system/guest-system.js'
import { setprivPrefix } from '../system/run-as.js'
import type { Tools } from '../system/tools.js'
import { tooLong } from './argument-limits.js'
import type { Birthmarks } from './birthmark.js'
import type { CgroupTree } from './cgroup.js'
import type { LaunchedProcess, LaunchSpec, TerminalSize } from './launched-process.js'
import type { NativePty } from './native-pty.js'
import { PipeProcess } from './pipe-process.js'
import type { PipeEnds, PipePool } from './pipes.js'
import type { ProcessTree } from './process-tree.js'
import { PtyProcess } from './pty-process.js'

interface LauncherDependencies {
  readonly pipes: PipePool
  readonly cgroups: CgroupTree | undefined
  readonly marks: Birthmarks | undefined
  readonly tools: Tools
  readonly pty: NativePty
  readonly system: Pick<GuestSystem, 'setUtf8Input'>
}

/** The three descriptors of a new process, numbers of the agent's own table. */
export type StandardStreams = readonly [number, number, number]

/** Starts processes: own session, own cgroup, the user's rights, exactly `cmd` as `argv[0]`. */
export class Launcher {
  readonly #pipes: PipePool
  readonly #cgroups: CgroupTree | undefined
  readonly #marks: Birthmarks | undefined
  readonly #tools: Tools
  readonly #pty: NativePty
  readonly #system: Pick<GuestSystem, 'setUtf8Input'>
  readonly #null = openSync('/dev/null', 'r+')

  constructor(dependencies: LauncherDependencies) {
    this.#pipes = dependencies.pipes
    this.#cgroups = dependencies.cgroups
    this.#marks = dependencies.marks
    this.#tools = dependencies.tools
    this.#pty = dependencies.pty
    this.#system = dependencies.system
  }

  /**
   * Returns once the program is started; what it writes waits in its pipe until `start`.
   * @throws AppError `too_large` for arguments and environment that do not fit, `guest_error` when nothing can be started, …
   */
  async launch(spec: LaunchSpec): Promise<LaunchedProcess> {
    return spec.pty === undefined ? this.#withPipes(spec) : this.#withTerminal(spec, spec.pty)
  }

  async #withPipes(spec: LaunchSpec): Promise<LaunchedProcess> {
    const { stdin, stdout, stderr } = await this.#openPipes(spec)
    const theirs: StandardStreams = [stdin?.theirs ?? this.#null, stdout.theirs, stderr.theirs]
    try {
      const { child, tree } = await this.#spawn(spec, theirs, [])
      const ours = { stdin: stdin?.ours, stdout: stdout.ours, stderr: stderr.ours }
      return new PipeProcess(child, tree, ours, this.#cgroups)
    } catch (error) {
      for (const fd of [stdin?.ours, stdout.ours, stderr.ours]) if (fd !== undefined) closeSync(fd)
      throw error
    } finally {
      for (const fd of [stdin?.theirs, stdout.theirs, stderr.theirs]) if (fd !== undefined) closeSync(fd)
    }
  }

  async #openPipes(spec: LaunchSpec) {
    const opened: PipeEnds[] = []
    const keep = (ends: PipeEnds): PipeEnds => {
      opened.push(ends)
      return ends
    }
    try {
      const stdout = keep(await this.#pipes.forOutput(spec.user))
      const stderr = keep(await this.#pipes.forOutput(spec.user))
      return { stdout, stderr, stdin: spec.stdin ? keep(await this.#pipes.forInput(spec.user)) : undefined }
    } catch (error) {
      for (const fd of opened.flatMap(({ ours, theirs }) => [ours, theirs])) closeSync(fd)
      throw error
    }
  }

  async #withTerminal(spec: LaunchSpec, size: TerminalSize): Promise<LaunchedProcess> {
    const terminal = this.#pty.open(size, spec.user)
    try {
      await this.#system.setUtf8Input(terminal.path)
      const prefix = [...this.#tools.command('setsid'), '-c', '--']
      const { child, tree } = await this.#spawn(spec, [terminal.theirs, terminal.theirs, terminal.theirs], prefix)
      return new PtyProcess(child, tree, terminal, this.#cgroups)
    } catch (error) {
      terminal.discard()
      throw error
    } finally {
      closeSync(terminal.theirs)
    }
  }

  async #spawn(spec: LaunchSpec, streams: StandardStreams, prefix: readonly string[]): Promise<Started> {
    const birth = { cgroup: this.#cgroups?.create(), mark: this.#marks?.next() }
    try {
      const child = await this.#run(spec, streams, birth, prefix)
      return { child, tree: { pid: child.pid, ...birth } }
    } catch (error) {
      if (birth.cgroup !== undefined) this.#cgroups?.remove(birth.cgroup)
      throw error
    }
  }

  /** The command, or where it cannot be run a program that says why. */
  async #run(
    spec: LaunchSpec,
    streams: StandardStreams,
    birth: Birth,
    prefix: readonly string[],
  ): Promise<RunningChild> {
    const child = this.#fork(commandLine(spec, prefix, this.#tools), spec, streams, birth)
    if (isRunning(child)) return child
    const failure = await failureOf(child)
    if (isErrno(failure, 'E2BIG')) throw tooLong(spec)
    const reporter = this.#fork(reportLine(spec.cmd, failure, this.#tools), spec, streams, birth)
    if (isRunning(reporter)) return reporter
    throw new AppError('guest_error', `No process can be started: ${errorText(await failureOf(reporter))}.`)
  }

  #fork(
    command: readonly string[],
    spec: LaunchSpec,
    streams: StandardStreams,
    { cgroup, mark }: Birth,
  ): ChildProcess | Error {
    const [program = '', ...args] = command
    const options: SpawnOptions = {
      cwd: spec.cwd,
      env: spec.env,
      // `setsid` makes the session of a terminal's process; it would fork if it were a group leader already.
      detached: spec.pty === undefined,
      stdio: [...streams, ...this.#pty.coverInherited(this.#null)],
      ...(spec.user.uid === 0 || usesSetpriv(spec) ? {} : { uid: spec.user.uid, gid: spec.user.gid }),
    }
    const fork = (): ChildProcess | Error => spawnNow(program, args, options)
    const marked = () => (mark === undefined || !this.#marks ? fork() : this.#marks.during(mark, fork))
    return cgroup === undefined || !this.#cgroups ? marked() : this.#cgroups.inside(cgroup, marked)
  }
}

/** What the kernel knows a process and its children by. */
type Birth = Pick<ProcessTree, 'cgroup' | 'mark'>

interface Started {
  readonly child: ChildProcess
  readonly tree: ProcessTree
}

type RunningChild = ChildProcess & { readonly pid: number }

function spawnNow(program: string, args: readonly string[], options: SpawnOptions): ChildProcess | Error {
  try {
    return spawn(program, args, options)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

function isRunning(child: ChildProcess | Error): child is RunningChild {
  return !(child instanceof Error) && child.pid !== undefined
}

/** Why there is no process; for a failed exec Node tells by an 'error' event only. */
async function failureOf(child: ChildProcess | Error): Promise<unknown> {
  if (child instanceof Error) return child
  const [error] = await once(child, 'error')
  return error
}

/** Only `setpriv` can give supplementary groups; without any, the fork itself switches the user. */
function usesSetpriv(spec: LaunchSpec): boolean {
  return spec.user.uid !== 0 && spec.user.groups.length > 0
}

function commandLine(spec: LaunchSpec, prefix: readonly string[], tools: Tools): readonly string[] {
  const program = [spec.cmd, ...spec.args]
  if (!usesSetpriv(spec)) return [...prefix, ...program]
  return [...prefix, ...setprivPrefix(spec.user, tools), ...program]
}

/** A name that is too long to be run is also too long to be reported whole. */
const REPORTED_CHARS = 1_024

/** A real process that says why the wanted one could not run, as a shell would: 127 unknown, 126 not executable. */
function reportLine(cmd: string, failure: unknown, tools: Tools): readonly string[] {
  const unknown = isErrno(failure, 'ENOENT', 'ENOTDIR')
  const reason = unknown ? 'command not found' : isErrno(failure, 'EACCES') ? 'Permission denied' : errorText(failure)
  const script = 'printf "%s: %s\\n" "$0" "$1" >&2; exit "$2"'
  return [...tools.applet('sh'), '-c', script, cmd.slice(0, REPORTED_CHARS), reason, unknown ? '127' : '126']
}
