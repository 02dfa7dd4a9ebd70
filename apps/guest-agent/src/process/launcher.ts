import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { getSystemErrorName } from 'node:util'
import { AppError, errorText, isErrno, type Logger } from '@wrenn/base'
import {
  isScriptForShell,
  type NotStarted,
  processScript,
  programPaths,
  type Streams,
} from '../starter/process-script.js'
import type { ProcessStarter } from '../starter/process-starter.js'
import type { GuestSystem } from '../system/guest-system.js'
import { setprivPrefix } from '../system/run-as.js'
import type { Tools } from '../system/tools.js'
import { tooLong } from './argument-limits.js'
import { type Birthmarks, USUAL_SLACK_NS } from './birthmark.js'
import { type CgroupTree, PROCESS_OOM_SCORE } from './cgroup.js'
import type { LaunchedProcess, LaunchSpec, TerminalSize } from './launched-process.js'
import type { NativePty, Terminal } from './native-pty.js'
import { PipeProcess } from './pipe-process.js'
import type { NamedPipe, PipePool } from './pipes.js'
import type { ProcessTree } from './process-tree.js'
import { PtyProcess } from './pty-process.js'
import { childOfNode, type StartedChild } from './started-child.js'

interface LauncherDependencies {
  readonly pipes: PipePool
  readonly cgroups: CgroupTree | undefined
  readonly marks: Birthmarks | undefined
  readonly tools: Tools
  readonly pty: NativePty
  readonly system: Pick<GuestSystem, 'setUtf8Input'>
  /** Makes the processes where there is one; else, and when it fails, Node.js does. */
  readonly starter: ProcessStarter | undefined
  readonly log: Logger
}

/** The three descriptors of a new process, numbers of the agent's own table. */
type StandardStreams = readonly [number, number, number]

/** Starts processes: own session, own cgroup, the user's rights, exactly `cmd` as `argv[0]`. */
export class Launcher {
  readonly #pipes: PipePool
  readonly #cgroups: CgroupTree | undefined
  readonly #marks: Birthmarks | undefined
  readonly #tools: Tools
  readonly #pty: NativePty
  readonly #system: Pick<GuestSystem, 'setUtf8Input'>
  readonly #starter: ProcessStarter | undefined
  readonly #log: Logger
  readonly #null = openSync('/dev/null', 'r+')

  constructor(dependencies: LauncherDependencies) {
    this.#pipes = dependencies.pipes
    this.#cgroups = dependencies.cgroups
    this.#marks = dependencies.marks
    this.#tools = dependencies.tools
    this.#pty = dependencies.pty
    this.#system = dependencies.system
    this.#starter = dependencies.starter
    this.#log = dependencies.log
  }

  /**
   * Returns once the program is started; what it writes waits in its pipe until `start`.
   * @throws AppError `too_large` for arguments and environment that do not fit, `guest_error` when nothing can be started, …
   */
  async launch(spec: LaunchSpec): Promise<LaunchedProcess> {
    await this.#starter?.prepare()
    return spec.pty === undefined ? this.#withPipes(spec) : this.#withTerminal(spec, spec.pty)
  }

  async #withPipes(spec: LaunchSpec): Promise<LaunchedProcess> {
    const pipes = await this.#openPipes(spec)
    const { stdin, stdout, stderr } = pipes
    try {
      const { child, tree } = await this.#spawn(spec, pipes)
      const ours = { stdin: stdin?.ours, stdout: stdout.ours, stderr: stderr.ours }
      return new PipeProcess(child, tree, ours, this.#cgroups)
    } catch (error) {
      for (const fd of [stdin?.ours, stdout.ours, stderr.ours]) if (fd !== undefined) closeSync(fd)
      throw error
    } finally {
      for (const pipe of [stdin, stdout, stderr]) pipe?.forget()
    }
  }

  async #openPipes(spec: LaunchSpec): Promise<Pipes> {
    const opened: NamedPipe[] = []
    const keep = (pipe: NamedPipe): NamedPipe => {
      opened.push(pipe)
      return pipe
    }
    try {
      const stdout = keep(await this.#pipes.forOutput())
      const stderr = keep(await this.#pipes.forOutput())
      return { stdout, stderr, stdin: spec.stdin ? keep(await this.#pipes.forInput()) : undefined }
    } catch (error) {
      for (const pipe of opened) {
        closeSync(pipe.ours)
        pipe.forget()
      }
      throw error
    }
  }

  async #withTerminal(spec: LaunchSpec, size: TerminalSize): Promise<LaunchedProcess> {
    const terminal = this.#pty.open(size, spec.user)
    try {
      const { child, tree } = await this.#spawn(spec, terminal)
      return new PtyProcess(child, tree, terminal, this.#cgroups)
    } catch (error) {
      terminal.discard()
      throw error
    }
  }

  async #spawn(spec: LaunchSpec, streams: Pipes | Terminal): Promise<Started> {
    const birth = { cgroup: this.#cgroups?.create(), mark: this.#marks?.next() }
    try {
      const child = await this.#run(spec, streams, birth)
      return { child, tree: { pid: child.pid, ...birth } }
    } catch (error) {
      if (birth.cgroup !== undefined) this.#cgroups?.remove(birth.cgroup)
      throw error
    }
  }

  /** The command, or where it cannot be run a program that says why. */
  async #run(spec: LaunchSpec, streams: Pipes | Terminal, birth: Birth): Promise<StartedChild> {
    const child = await this.#start(spec, [spec.cmd, ...spec.args], streams, birth)
    if (!('failure' in child)) return child
    if (isErrno(child.failure, 'E2BIG')) throw tooLong(spec)
    const reporter = await this.#start(spec, reportLine(spec.cmd, child.failure, this.#tools), streams, birth)
    if (!('failure' in reporter)) return reporter
    throw new AppError('guest_error', `No process can be started: ${errorText(reporter.failure)}.`)
  }

  async #start(
    spec: LaunchSpec,
    command: readonly string[],
    streams: Pipes | Terminal,
    birth: Birth,
  ): Promise<StartedChild | Failed> {
    const started = this.#byStarter(spec, command, streams, birth)
    if (started !== undefined) {
      if (!('step' in started)) return started
      if (started.step === 'exec') return { failure: errnoError(command[0], started.errno) }
      this.#log.warn({ reason: getSystemErrorName(-started.errno) }, 'starter.refused')
    }
    return await this.#byNode(spec, command, streams, birth)
  }

  /** By the resident starter; `undefined` where there is none, or the command line is too long for it. */
  #byStarter(
    spec: LaunchSpec,
    command: readonly string[],
    streams: Pipes | Terminal,
    birth: Birth,
  ): StartedChild | NotStarted | undefined {
    const starter = this.#starter
    const state = starter?.state
    const [program = ''] = command
    const paths = programPaths(program, spec.env.PATH)
    if (starter === undefined || state === undefined) return undefined
    if (typeof paths === 'number') return { step: 'exec', errno: paths, path: undefined }
    const plan = {
      cgroup: birth.cgroup?.path,
      mark: birth.mark,
      usualMark: USUAL_SLACK_NS,
      score: PROCESS_OOM_SCORE,
    }
    const run = (argv: readonly string[], tried: readonly string[]): StartedChild | NotStarted | undefined => {
      const script = processScript(spec, argv, tried, namesOf(streams), plan, state)
      return script && starter.start(script)
    }
    const started = run(command, paths)
    if (started === undefined || !('step' in started) || !isScriptForShell(started)) return started
    return run(['/bin/sh', started.path, ...command.slice(1)], ['/bin/sh'])
  }

  async #byNode(
    spec: LaunchSpec,
    command: readonly string[],
    streams: Pipes | Terminal,
    birth: Birth,
  ): Promise<StartedChild | Failed> {
    const theirs = 'path' in streams ? await this.#terminalEnds(streams) : this.#pipeEnds(spec, streams)
    try {
      const prefix = 'path' in streams ? [...this.#tools.command('setsid'), '-c', '--'] : []
      const child = this.#fork(commandLine(spec, command, prefix, this.#tools), spec, theirs, birth)
      return isRunning(child) ? childOfNode(child) : { failure: await failureOf(child) }
    } finally {
      for (const fd of new Set(theirs)) if (fd !== this.#null) closeSync(fd)
    }
  }

  #pipeEnds({ user }: LaunchSpec, { stdin, stdout, stderr }: Pipes): StandardStreams {
    return [stdin?.openTheirs(user) ?? this.#null, stdout.openTheirs(user), stderr.openTheirs(user)]
  }

  async #terminalEnds(terminal: Terminal): Promise<StandardStreams> {
    await this.#system.setUtf8Input(terminal.path)
    const theirs = terminal.openTheirs()
    return [theirs, theirs, theirs]
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

interface Pipes {
  readonly stdin: NamedPipe | undefined
  readonly stdout: NamedPipe
  readonly stderr: NamedPipe
}

interface Failed {
  readonly failure: unknown
}

/** What the kernel knows a process and its children by. */
type Birth = Pick<ProcessTree, 'cgroup' | 'mark'>

interface Started {
  readonly child: StartedChild
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

function commandLine(
  spec: LaunchSpec,
  command: readonly string[],
  prefix: readonly string[],
  tools: Tools,
): readonly string[] {
  return [...prefix, ...(usesSetpriv(spec) ? setprivPrefix(spec.user, tools) : []), ...command]
}

function namesOf(streams: Pipes | Terminal): Streams {
  if ('path' in streams) return { terminal: streams.path }
  return { stdin: streams.stdin?.name, stdout: streams.stdout.name, stderr: streams.stderr.name }
}

/** As Node.js tells of a command that it could not run. */
function errnoError(program: string | undefined, errno: number): Error {
  const code = getSystemErrorName(-errno)
  const isNamed = code === 'ENOENT' || code === 'EACCES'
  return Object.assign(new Error(isNamed ? `spawn ${program} ${code}` : `spawn ${code}`), { code })
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
