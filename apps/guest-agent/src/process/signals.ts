import { readdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { isErrno } from '@wrenn/base'
import { killAll, type ProcessCgroup, pidsIn } from './cgroup.js'

/** Signal names as clients of this wire expect them in `status`: the texts of Go's `syscall.Signal`. */
const signalTexts: Readonly<Record<string, string>> = {
  SIGHUP: 'hangup',
  SIGINT: 'interrupt',
  SIGQUIT: 'quit',
  SIGILL: 'illegal instruction',
  SIGTRAP: 'trace/breakpoint trap',
  SIGABRT: 'aborted',
  SIGBUS: 'bus error',
  SIGFPE: 'floating point exception',
  SIGKILL: 'killed',
  SIGUSR1: 'user defined signal 1',
  SIGSEGV: 'segmentation fault',
  SIGUSR2: 'user defined signal 2',
  SIGPIPE: 'broken pipe',
  SIGALRM: 'alarm clock',
  SIGTERM: 'terminated',
  SIGXCPU: 'CPU time limit exceeded',
  SIGXFSZ: 'file size limit exceeded',
  SIGSYS: 'bad system call',
}

export function signalText(name: NodeJS.Signals): string {
  return signalTexts[name] ?? `signal ${signalNumber(name)}`
}

export function signalNumber(name: NodeJS.Signals): number {
  return constants.signals[name]
}

/** The processes that belong together: one session leader, its process group and, where there is one, its cgroup. */
export interface ProcessTree {
  readonly pid: number
  readonly cgroup: ProcessCgroup | undefined
}

/** Sends a signal to the whole tree. */
export function signalTree(tree: ProcessTree, signal: number): void {
  if (tree.cgroup === undefined) {
    for (const pid of [-tree.pid, ...pidsOfSession(tree.pid)]) signalOne(pid, signal)
  } else if (signal !== constants.signals.SIGKILL || !killAll(tree.cgroup)) {
    for (const pid of pidsIn(tree.cgroup)) signalOne(pid, signal)
  }
}

function signalOne(pid: number, signal: number): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}

/** Members of the session outside the leader's own process group: a shell's background jobs. */
function pidsOfSession(session: number): readonly number[] {
  const pids: number[] = []
  for (const name of readdirSync('/proc')) {
    const fields = /^\d+$/.test(name) ? statFields(name) : undefined
    if (fields !== undefined && Number(fields[3]) === session && Number(fields[2]) !== session) pids.push(Number(name))
  }
  return pids
}

/** `/proc/PID/stat` after the program name: state, ppid, pgrp, session, … (proc(5)). */
function statFields(pid: string): readonly string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined
    throw error
  }
}
