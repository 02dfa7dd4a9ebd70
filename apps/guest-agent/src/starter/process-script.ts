import { constants } from 'node:os'
import { starterLayout } from '@wrenn/base'
import type { LaunchSpec } from '../process/launched-process.js'
import { type Label, Script } from './script.js'

/** System calls, x86-64. */
const call = {
  write: 1,
  ioctl: 16,
  dup2: 33,
  execve: 59,
  chdir: 80,
  fchown: 93,
  getpid: 39,
  setuid: 105,
  setgid: 106,
  setsid: 112,
  setgroups: 116,
  prctl: 157,
  exitGroup: 231,
  openat: 257,
  signalMask: 14,
  clone3: 435,
  closeRange: 436,
} as const

const AT_FDCWD = -100
/** fcntl.h */
const O_RDONLY_CLOEXEC = 0o2000000
const O_WRONLY_CLOEXEC = 0o2000001
const O_TERMINAL = 0o2000402 // read and write, no controlling terminal yet
const O_DIRECTORY_CLOEXEC = 0o2200000
/** linux/sched.h: the parent waits, and the memory is one, until the program runs; clone3(2) has the structure. */
const CLONE_FLAGS = 0x100 | 0x4000
const CLONE_INTO_CGROUP_HIGH = 2
const CLONE_ARGS_BYTES = 88
const CLONE_ARGS_SIGNAL = 32
const CLONE_ARGS_CGROUP = 80
const SIGCHLD = 17
const PR_SET_TIMERSLACK = 29
const SIG_SETMASK = 2
const SIGNAL_SET_BYTES = 8
/** asm-generic/ioctls.h */
const TIOCSCTTY = 0x540e
const TCSETS = 0x5402
const EXIT_NOT_STARTED = 127

const { ENOENT, ENOTDIR, EACCES, ESTALE, ENODEV, ETIMEDOUT, ENAMETOOLONG, ENOEXEC } = constants.errno
/** With these, and with EACCES, the search of `PATH` goes on, as in the C library. */
const NOT_HERE = [ENOENT, ENOTDIR, ESTALE, ENODEV, ETIMEDOUT]
/** Where programs are looked for that have no `PATH`, confstr(3). */
const PATH_OF_THE_SYSTEM = '/bin:/usr/bin'
const MAX_NAME_BYTES = 255

/**
 * What a new terminal of the kernel is set to (drivers/tty/tty_io.c, `tty_std_termios`), and IUTF8: line editing then takes a
 * whole character back, not one of its bytes. Flags of input, output, control and local modes, line, control characters.
 */
const TERMINAL_MODES = Buffer.from(
  ['00450000', '05000000', 'bf000000', '3b8a0000', '00', '031c7f150400010011131a00120f1716000000'].join(''),
  'hex',
)

/** Where a new process reads and writes: names of pipes in the starter's directory, or a terminal's path. */
export type Streams =
  | { readonly stdin: string | undefined; readonly stdout: string; readonly stderr: string }
  | { readonly terminal: string }

/** What the starter itself must know; descriptors are its own. */
export interface StarterState {
  /** The directory with the pipes. */
  readonly pipesFd: number
  /** Its `oom_score_adj`, where it could be opened, with what stands there. */
  readonly score: { readonly fd: number; readonly own: string } | undefined
  /** From here on descriptors are open for one script only. */
  readonly firstFreeFd: number
}

export interface BirthPlan {
  /** Path of the cgroup that the process is born in. */
  readonly cgroup: string | undefined
  /** Timer slack that it and its descendants bear. */
  readonly mark: number | undefined
  readonly usualMark: number
  /** Out-of-memory score of processes in a cgroup. */
  readonly score: string
}

/** Why there is no process. `exec`: the program cannot be run. `setup`: something before it failed. */
export interface NotStarted {
  readonly step: 'exec' | 'setup'
  readonly errno: number
  /** The path that was tried, where one was. */
  readonly path: string | undefined
}

export interface ProcessScript {
  readonly bytes: Buffer
  readonly answerBytes: number
  /** Its process's id, or why there is none. */
  read(answer: Buffer): number | NotStarted
}

const PID = 0
const FAILED_CHILD = 1
const FIRST_EXEC = 2

/**
 * The script that starts one process; `undefined` when it is longer than the kernel lets a command line be.
 * @param paths the files to try in turn, which `programPaths` gives
 */
export function processScript(
  spec: LaunchSpec,
  argv: readonly string[],
  paths: readonly string[],
  streams: Streams,
  birth: BirthPlan,
  starter: StarterState,
): ProcessScript | undefined {
  const script = new Script({ results: FIRST_EXEC + paths.length, chosen: [...NOT_HERE, EACCES] })
  const argvAt = script.pointers(argv.map((text) => script.text(text)))
  const envAt = script.pointers(Object.entries(spec.env).map(([name, value]) => script.text(`${name}=${value}`)))
  const pathsAt = paths.map((path) => script.text(path))
  const cwdAt = script.text(spec.cwd)
  const openStreams = streamSteps(script, streams, spec, starter)
  const becomeUser = userSteps(script, spec)
  const emptyMask = script.data(Buffer.alloc(SIGNAL_SET_BYTES))
  addBirth(script, birth, starter)
  const failed: Label = { address: 0 }
  script.begin('process')
  script.call({ number: call.setsid, args: [], tolerated: 'anything' })
  openStreams(failed)
  const chdir = script.call({ number: call.chdir, args: [cwdAt], orElse: failed })
  becomeUser(failed)
  const mask = [SIG_SETMASK, emptyMask, 0, SIGNAL_SET_BYTES]
  script.call({ number: call.signalMask, args: mask, orElse: failed })
  const execs = pathsAt.map((path, index) => {
    const result = script.result(FIRST_EXEC + index)
    return script.call({
      number: call.execve,
      args: [path, argvAt, envAt],
      result,
      tolerated: 'chosen',
      orElse: failed,
    })
  })
  script.place(failed)
  script.call({ number: call.getpid, args: [], result: script.result(FAILED_CHILD), tolerated: 'anything' })
  script.call({ number: call.exitGroup, args: [EXIT_NOT_STARTED], tolerated: 'anything' })
  if (!script.fits) return undefined
  const { answerBytes } = script
  return { bytes: script.finish(), answerBytes, read: (answer) => readAnswer(answer, chdir, execs, paths) }
}

/** The files that execvp(3) would try for `cmd`, in turn; an errno when it would try none. */
export function programPaths(cmd: string, path: string | undefined): readonly string[] | number {
  if (cmd.includes('/')) return [cmd]
  if (cmd === '') return ENOENT
  if (Buffer.byteLength(cmd) > MAX_NAME_BYTES) return ENAMETOOLONG
  return (path ?? PATH_OF_THE_SYSTEM).split(':').map((folder) => (folder === '' ? cmd : `${folder}/${cmd}`))
}

/** Whether the kernel knows no way to run the file: then the shell reads it as a script, as after execvp(3). */
export function isScriptForShell(failure: NotStarted): failure is NotStarted & { path: string } {
  return failure.step === 'exec' && failure.errno === ENOEXEC && failure.path !== undefined
}

/** Adds its calls to the list of the new process; their data is in the script already. */
type Steps = (failed: Label) => void

function streamSteps(script: Script, streams: Streams, { user }: LaunchSpec, { pipesFd }: StarterState): Steps {
  const put = (folder: number, path: number, flags: number, fd: number, failed: Label): void => {
    script.call({ number: call.openat, args: [folder, path, flags, 0], result: 'next', orElse: failed })
    script.call({ number: call.dup2, args: [0, fd], orElse: failed })
  }
  if ('terminal' in streams) {
    const path = script.text(streams.terminal)
    const modes = script.data(TERMINAL_MODES)
    return (failed) => {
      put(AT_FDCWD, path, O_TERMINAL, 0, failed)
      for (const fd of [1, 2]) script.call({ number: call.dup2, args: [0, fd], orElse: failed })
      script.call({ number: call.ioctl, args: [0, TIOCSCTTY, 1], orElse: failed })
      // A terminal that edits by bytes is better than none.
      script.call({ number: call.ioctl, args: [0, TCSETS, modes], tolerated: 'anything' })
    }
  }
  const { stdin, stdout, stderr } = streams
  const paths = [stdin, stdout, stderr].map((name) => (name === undefined ? undefined : script.text(name)))
  return (failed) => {
    for (const [fd, path] of paths.entries()) {
      // Descriptor 2 is /dev/null until its own turn.
      if (path === undefined) script.call({ number: call.dup2, args: [2, fd], orElse: failed })
      else put(pipesFd, path, fd === 0 ? O_RDONLY_CLOEXEC : O_WRONLY_CLOEXEC, fd, failed)
      // So that it can be opened anew, as /dev/stdout.
      if (path !== undefined && user.uid !== 0)
        script.call({ number: call.fchown, args: [fd, user.uid, user.gid], orElse: failed })
    }
  }
}

function userSteps(script: Script, { user }: LaunchSpec): Steps {
  if (user.uid === 0) return () => {}
  const groups = Buffer.alloc(user.groups.length * 4)
  for (const [index, group] of user.groups.entries()) groups.writeUInt32LE(group, index * 4)
  const groupsAt = script.data(groups)
  return (failed) => {
    script.call({ number: call.setgroups, args: [user.groups.length, groupsAt], orElse: failed })
    script.call({ number: call.setgid, args: [user.gid], orElse: failed })
    script.call({ number: call.setuid, args: [user.uid], orElse: failed })
  }
}

/** The starter's own list: what a process has from its birth on, the birth, and everything as it was. */
function addBirth(script: Script, birth: BirthPlan, { score, firstFreeFd }: StarterState): void {
  const cloneArgs = Buffer.alloc(CLONE_ARGS_BYTES)
  cloneArgs.writeUInt32LE(CLONE_FLAGS, 0)
  if (birth.cgroup !== undefined) cloneArgs.writeUInt32LE(CLONE_INTO_CGROUP_HIGH, 4)
  cloneArgs.writeUInt32LE(SIGCHLD, CLONE_ARGS_SIGNAL)
  const cloneArgsAt = script.data(cloneArgs)
  const cgroup = birth.cgroup === undefined ? undefined : script.text(birth.cgroup)
  const scores = cgroup !== undefined && score ? { fd: score.fd, texts: [birth.score, score.own] } : undefined
  const [raised, own] = scores?.texts.map((text) => ({ at: script.text(text), bytes: Buffer.byteLength(text) })) ?? []
  const setScore = (text: typeof own): void => {
    if (scores !== undefined && text !== undefined)
      script.call({ number: call.write, args: [scores.fd, text.at, text.bytes], tolerated: 'anything' })
  }
  const setMark = (mark: number): void => {
    if (birth.mark !== undefined)
      script.call({ number: call.prctl, args: [PR_SET_TIMERSLACK, mark], tolerated: 'anything' })
  }
  const over: Label = { address: 0 }
  script.begin('starter')
  if (cgroup !== undefined) {
    const args = [AT_FDCWD, cgroup, O_DIRECTORY_CLOEXEC, 0]
    script.call({ number: call.openat, args, result: cloneArgsAt + CLONE_ARGS_CGROUP, orElse: over })
  }
  setScore(raised)
  setMark(birth.mark ?? birth.usualMark)
  script.call({
    number: call.clone3,
    args: [cloneArgsAt, CLONE_ARGS_BYTES],
    result: script.result(PID),
    orElse: over,
  })
  script.place(over)
  setMark(birth.usualMark)
  setScore(own)
  if (cgroup !== undefined) script.call({ number: call.closeRange, args: [firstFreeFd, -1, 0], tolerated: 'anything' })
  script.answer()
}

function readAnswer(
  answer: Buffer,
  chdir: number,
  execs: readonly number[],
  paths: readonly string[],
): number | NotStarted {
  const result = (index: number): number => answer.readInt32LE(starterLayout.headerBytes + index * 8)
  const pid = result(PID)
  const failedAt = answer.readUInt32LE(24)
  const errno = -answer.readInt32LE(32)
  if (pid <= 0) return { step: 'setup', errno, path: undefined }
  if (result(FAILED_CHILD) === 0) return pid
  if (failedAt === 0) {
    const met = execs.map((_, index) => -result(FIRST_EXEC + index))
    return { step: 'exec', errno: met.includes(EACCES) ? EACCES : (met.at(-1) ?? ENOENT), path: undefined }
  }
  const tried = execs.indexOf(failedAt)
  if (tried >= 0) return { step: 'exec', errno, path: paths[tried] }
  return { step: failedAt === chdir ? 'exec' : 'setup', errno, path: undefined }
}
