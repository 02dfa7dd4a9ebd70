import { readdirSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { isErrno } from '@wrenn/base'
import { birthmarkOf, readIfThere } from './birthmark.js'
import { killAll, type ProcessCgroup, pidsIn } from './cgroup.js'

const { SIGKILL, SIGSTOP } = constants.signals
/** How long a tree that does not die, or goes on growing, is worked on. */
const KILL_WITHIN_MS = 3_000
/** What was killed is dead by then, mostly. */
const LOOK_AGAIN_MS = 10
/** After looking at so many processes other work of the agent has its turn: it must answer meanwhile. */
const PIDS_A_TURN = 50
/** Its children are the kernel's own threads. */
const KTHREADD = 2

/** A started process with all that comes from it, wherever it went. */
export interface ProcessTree {
  /** The process that was started: the leader of its session. */
  readonly pid: number
  readonly cgroup: ProcessCgroup | undefined
  /** What it handed on to its children, see `Birthmarks`. */
  readonly mark: number | undefined
}

/** Sends a signal to every living process of the tree, once. */
export async function signalTree(tree: ProcessTree, signal: number): Promise<void> {
  for (const pid of await membersOf(tree)) signalOne(pid, signal)
}

/**
 * Kills the tree: at once what is in its cgroup, then what left it. One that multiplies meanwhile is stopped before it is
 * killed, so that those that are dead make no room for new ones. Resolves when nothing lives, or after 3 s.
 */
export async function killTree(tree: ProcessTree): Promise<void> {
  const endBy = performance.now() + KILL_WITHIN_MS
  const stopped = new Set<number>()
  killGroup(tree)
  for (;;) {
    await delay(LOOK_AGAIN_MS)
    const living = await membersOf(tree)
    if (living.length === 0) return
    killGroupsOf(tree, living)
    const news = living.filter((pid) => !stopped.has(pid))
    for (const pid of news) {
      signalOne(pid, SIGSTOP)
      stopped.add(pid)
    }
    const isLate = performance.now() > endBy
    // Who was seen is stopped by now; when the next look finds nobody new, all of them die.
    if (news.length === 0 || isLate || living.length === 1) for (const pid of living) signalOne(pid, SIGKILL)
    if (isLate) return
  }
}

function killGroup(tree: ProcessTree): void {
  const { pid, cgroup } = tree
  // Where the leader went, its children are.
  killGroupsOf(tree, [pid])
  // In its cgroup or not, the leader has to go: whoever waits, waits for its end.
  signalOne(pid, SIGKILL)
  if (cgroup === undefined || killAll(cgroup)) return
  for (const each of pidsIn(cgroup)) signalOne(each, SIGKILL)
}

/** Kills cgroups that hold nothing but members: the kernel does that in one step, also with one that multiplies. */
function killGroupsOf(tree: ProcessTree, living: readonly number[]): void {
  if (tree.cgroup === undefined) return
  const members = new Set(living)
  const groups = new Set(living.map(cgroupOf).filter((path) => path !== undefined))
  for (const path of groups) {
    const group = { path: join(tree.cgroup.mount, path) }
    const isOurs = (pid: number): boolean => members.has(pid) || bears(pid, tree.mark)
    // The root holds the machine's first processes, and cannot be killed anyway. In the tree's own all are its members.
    if (path !== '/' && (group.path === tree.cgroup.path || pidsIn(group).every(isOurs))) killAll(group)
  }
}

/** The path below the mount of cgroup2. */
function cgroupOf(pid: number): string | undefined {
  return /^0::(.*)$/m.exec(readIfThere(`/proc/${pid}/cgroup`) ?? '')?.[1]
}

/** Every living process of the tree: it bears the mark, is in the leader's session or the cgroup, or descends from such a one. */
async function membersOf(tree: ProcessTree): Promise<readonly number[]> {
  const inGroup = new Set(tree.cgroup === undefined ? [] : pidsIn(tree.cgroup))
  const members = new Set<number>()
  const children = new Map<number, number[]>()
  const living = new Set<number>()
  for await (const { pid, parent, session, isAlive } of processes()) {
    if (isAlive) living.add(pid)
    children.set(parent, [...(children.get(parent) ?? []), pid])
    const isOne = pid === tree.pid || session === tree.pid || inGroup.has(pid) || bears(pid, tree.mark)
    if (isOne) members.add(pid)
  }
  for (const pid of members) for (const child of children.get(pid) ?? []) members.add(child)
  return [...members].filter((pid) => living.has(pid))
}

function bears(pid: number, mark: number | undefined): boolean {
  return mark !== undefined && birthmarkOf(pid) === mark
}

interface ProcessStat {
  readonly pid: number
  readonly parent: number
  readonly session: number
  /** Not a zombie. */
  readonly isAlive: boolean
}

/** All processes but the kernel's. */
async function* processes(): AsyncGenerator<ProcessStat> {
  const ofKernel = new Set(kernelThreads())
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && !ofKernel.has(name))
  for (const [index, pid] of pids.entries()) {
    if (index % PIDS_A_TURN === PIDS_A_TURN - 1) await nextTurn()
    const stat = statOf(Number(pid))
    if (stat !== undefined && stat.pid !== KTHREADD && stat.parent !== KTHREADD) yield stat
  }
}

/** Most processes of a small machine, known by one look instead of one at each; none where the kernel does not list children. */
function kernelThreads(): readonly string[] {
  return (readIfThere(`/proc/${KTHREADD}/task/${KTHREADD}/children`) ?? '').split(' ')
}

/** `/proc/PID/stat` after the program name, which may hold anything: state, ppid, pgrp, session, … (proc(5)). */
function statOf(pid: number): ProcessStat | undefined {
  const text = readIfThere(`/proc/${pid}/stat`)
  if (text === undefined) return undefined
  const [state = 'X', parent, , session] = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { pid, parent: Number(parent), session: Number(session), isAlive: state !== 'Z' && state !== 'X' }
}

function signalOne(pid: number, signal: number): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}
