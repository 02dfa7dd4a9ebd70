import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, isRunning, type ProcessId, readProcessStat, signalProcess } from '@wrenn/base'
import type { VmRecord } from '../engine.js'

/** One SIGKILL is enough unless the process hangs in the kernel; then it is repeated this often before we give up. */
const KILL_ATTEMPTS = 5
const KILL_ATTEMPT_MS = 2_000
const GONE_POLL_MS = 5
/** USER_HZ, a constant of the kernel's interface on x86-64 and arm64. */
const TICKS_PER_SECOND = 100n
const PAGE_BYTES = 4096

interface ProcessSample {
  readonly startTicks: string
  readonly cpuNs: bigint
  readonly rssBytes: number
}

/** proc_pid_stat(5); `undefined` for a process that is gone, also when nobody has collected its status yet. */
export async function sampleProcess(pid: number): Promise<ProcessSample | undefined> {
  const stat = await readProcessStat(pid)
  if (stat === undefined) return undefined
  const ticks = BigInt(stat.field(14)) + BigInt(stat.field(15))
  return {
    startTicks: stat.startTicks,
    cpuNs: (ticks * 1_000_000_000n) / TICKS_PER_SECOND,
    rssBytes: Number(stat.field(24)) * PAGE_BYTES,
  }
}

/** Real uid and gid of a process, or `undefined` when it is gone. */
export async function processOwner(pid: number): Promise<{ readonly uid: number; readonly gid: number } | undefined> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const uid = /^Uid:\s+(\d+)/m.exec(text)?.[1]
  const gid = /^Gid:\s+(\d+)/m.exec(text)?.[1]
  return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) }
}

/** How a process that is not our child is watched. */
export interface GoneOptions {
  /** @default no limit */
  readonly timeoutMs?: number
  /** @default 5 */
  readonly intervalMs?: number
  /** Whether the wait keeps our own process alive. @default true */
  readonly ref?: boolean
}

/** Waits until the process is gone: for one that is not our child the kernel sends no notice. `false` when time is over. */
export async function processGone(id: ProcessId, options: GoneOptions = {}): Promise<boolean> {
  const { timeoutMs = Number.POSITIVE_INFINITY, intervalMs = GONE_POLL_MS, ref = true } = options
  const deadline = performance.now() + timeoutMs
  while (await isRunning(id)) {
    if (performance.now() >= deadline) return false
    await delay(intervalMs, undefined, { ref })
  }
  return true
}

/** @throws AppError `engine_failure` when the process survives every SIGKILL. */
export async function killProcess(id: ProcessId): Promise<void> {
  for (let attempt = 0; attempt < KILL_ATTEMPTS; attempt++) {
    if (!(await signalProcess(id, 'SIGKILL'))) return
    if (await processGone(id, { timeoutMs: KILL_ATTEMPT_MS })) return
  }
  const message = `Process ${id.pid} survives SIGKILL: it hangs inside the kernel, probably in disk I/O.`
  throw new AppError('engine_failure', message)
}

/**
 * Ends a guest of which only the record is left, such as one whose monitor no longer answers `Engine.adopt`. Does nothing
 * when its process is gone.
 * @throws AppError `engine_failure` when the process survives every SIGKILL.
 */
export function killRecordedVm(record: VmRecord): Promise<void> {
  return killProcess({ pid: record.pid, startTicks: record.pidStartTicks })
}
