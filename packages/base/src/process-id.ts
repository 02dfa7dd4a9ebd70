import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { isErrno } from './errors.js'

/** A pid alone may come to name another process; its start time (in clock ticks since boot) tells them apart. */
export const processIdSchema = z.object({ pid: z.number().int().positive(), startTicks: z.string() })
/** A process on this machine since its boot: what records keep, so that a later start of ours can find or end it safely. */
export type ProcessId = z.infer<typeof processIdSchema>

/** One reading of /proc/pid/stat, whose name field cannot deceive it. */
export interface ProcessStat extends ProcessId {
  /** By its number in proc_pid_stat(5), from 3 on. */
  field(number: number): string
}

/**
 * What the kernel says of a process; `undefined` when it has ended, also when nobody has collected its status yet. A process
 * whose first thread has ended has not as long as other threads, which are killed a moment later, have its files and ports.
 */
export async function readProcessStat(pid: number): Promise<ProcessStat | undefined> {
  const text = await readUnlessGone(`/proc/${pid}/stat`)
  if (text === undefined) return undefined
  // The name in parentheses may hold anything; what follows its last parenthesis starts with field 3.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const field = (number: number): string => fields[number - 3] ?? '0'
  const state = field(3)
  const threads = Number(field(20))
  if (state === 'X' || (state === 'Z' && threads <= 1)) return undefined
  return { pid, startTicks: field(22), field }
}

/** The lasting name of a process that runs now; `undefined` when it has ended. */
export async function identify(pid: number): Promise<ProcessId | undefined> {
  const stat = await readProcessStat(pid)
  return stat && { pid, startTicks: stat.startTicks }
}

/** False when it ended, a zombie included, and when the pid belongs to a later process. */
export async function isRunning(id: ProcessId): Promise<boolean> {
  return (await readProcessStat(id.pid))?.startTicks === id.startTicks
}

/** `PF_EXITING` of include/linux/sched.h, in the flags of proc_pid_stat(5). */
const EXITING = 4
const SIGKILL_BIT = 1n << 8n

/** Whether it was killed and is only still to be taken down: it answers nobody, and nobody need stop it. */
export async function isDying(id: ProcessId): Promise<boolean> {
  const stat = await readProcessStat(id.pid)
  if (stat?.startTicks !== id.startTicks) return false
  if ((Number(stat.field(9)) & EXITING) !== 0 || stat.field(3) === 'Z') return true
  const status = (await readUnlessGone(`/proc/${id.pid}/status`)) ?? ''
  const pending = [...status.matchAll(/^(?:Sig|Shd)Pnd:\s*([0-9a-f]+)$/gm)].map(([, bits]) => BigInt(`0x${bits}`))
  return pending.some((bits) => (bits & SIGKILL_BIT) !== 0n)
}

/** @returns false when the process is gone already. */
export async function signalProcess(id: ProcessId, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isRunning(id))) return false
  try {
    return process.kill(id.pid, signal)
  } catch (error) {
    if (isErrno(error, 'ESRCH')) return false
    throw error
  }
}

async function readUnlessGone(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined
    throw error
  }
}
