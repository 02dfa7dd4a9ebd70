import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import type { VmExitCause } from '../engine.js'

/** Everything that is known about an end. */
export interface ExitEvidence {
  /** We were asked to kill it, before it ended by itself. */
  readonly killRequested: boolean
  /** First `SHUTDOWN` reason that QEMU reported, or the run state that stands for one. */
  readonly reason: string | undefined
  readonly exitCode: number | undefined
  readonly signal: string | undefined
  /** Processes of the guest's cgroups killed for want of memory since the handle exists. */
  readonly oomKills: number
  readonly consoleTail: string
  readonly engineLog: string
}

/** A judgement on {@link ExitEvidence}: what `VmExit` tells of it. */
export interface ExitVerdict {
  readonly cause: VmExitCause
  readonly message: string
}

const OUTSIDE_SIGNALS = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP']

/** The last line that says something, for a message. */
export function lastWords(log: string): string {
  const lines = log.split('\n').filter((line) => line.trim() !== '')
  return lines.slice(-3).join(' ').trim() || 'it said nothing'
}

/** The panic, and of an oops what it was and where: "Fatal exception in interrupt" alone helps nobody. */
function panicLine(consoleTail: string): string | undefined {
  const panic = /Kernel panic - not syncing:[^\r\n]*/.exec(consoleTail)
  if (!panic) return undefined
  const before = consoleTail.slice(0, panic.index)
  const fault = /\b(?:BUG|Oops): [^\r\n]*/.exec(before)?.[0]
  const place = /\bRIP: [0-9a-f]+:[^\r\n]*/.exec(before)?.[0]
  const oops = [fault, place].filter((line) => line !== undefined)
  return oops.length === 0 ? panic[0] : `${panic[0]} (${oops.join('; ')})`
}

/** As many lines of an oops as have its registers, code and call trace. */
const OOPS_LINES = 60
const OOPS_LINE_LENGTH = 200

/** What the kernel said of the fault that it panicked by, registers and calls included; for the log of whoever looks for its cause. */
export function oopsOf(consoleTail: string): string[] {
  const lines = consoleTail.split(/\r?\n/)
  const first = lines.findIndex((line) => /\b(?:BUG|Oops|PANIC): |\bKernel panic - not syncing:/.test(line))
  if (first < 0) return []
  // The kernel's own lines alone, which have its time: programs of the guest write to its console, too.
  const own = lines.slice(first).filter((line) => /^\[ *\d+\.\d+\] /.test(line))
  return own.slice(0, OOPS_LINES).map((line) => line.slice(0, OOPS_LINE_LENGTH))
}

function guestEnd(evidence: ExitEvidence): ExitVerdict | undefined {
  const { reason, consoleTail } = evidence
  const panic = panicLine(consoleTail)
  if (reason === 'guest-panic' || reason === 'guest-panicked' || (panic && reason)) {
    return { cause: 'guest_panic', message: `The guest's kernel panicked: ${panic ?? 'it left no message'}.` }
  }
  if (reason === 'guest-reset' || (reason === 'shutdown' && consoleTail.includes('reboot: Restarting system'))) {
    return { cause: 'guest_reset', message: 'The guest restarted itself, which ends it.' }
  }
  if (reason === 'guest-shutdown' || reason === 'shutdown') {
    return { cause: 'guest_shutdown', message: 'The guest shut itself down.' }
  }
  if (reason === 'internal-error') {
    // A dump of registers follows, which says nothing to people.
    const error = /KVM internal error[^\n]*(?:\n[a-z][^\n]*)?/.exec(evidence.engineLog)?.[0].replace('\n', ': ')
    const message = `QEMU cannot run the guest any further: ${error ?? lastWords(evidence.engineLog)}.`
    return { cause: 'engine_failure', message }
  }
  return undefined
}

/** Judges why a guest ended; the surest evidence first. */
export function judgeExit(evidence: ExitEvidence): ExitVerdict {
  const { exitCode, signal } = evidence
  const byGuest = guestEnd(evidence)
  if (byGuest) return byGuest
  if (evidence.killRequested) return { cause: 'killed', message: 'The guest was ended on request.' }
  if (evidence.oomKills > 0 && (signal === 'SIGKILL' || exitCode === undefined)) {
    return { cause: 'oom_killed', message: 'The kernel ended the guest because its memory limit was reached.' }
  }
  if (evidence.reason?.startsWith('host-') || (signal !== undefined && OUTSIDE_SIGNALS.includes(signal))) {
    return { cause: 'killed', message: `Somebody on the host ended the guest (${signal ?? evidence.reason}).` }
  }
  if (signal !== undefined || (exitCode !== undefined && exitCode !== 0)) {
    const how = signal === undefined ? `with exit code ${exitCode}` : `by ${signal}`
    return { cause: 'engine_failure', message: `QEMU ended ${how}: ${lastWords(evidence.engineLog)}.` }
  }
  return {
    cause: 'unknown',
    message: `The guest's process is gone; QEMU's last words: ${lastWords(evidence.engineLog)}.`,
  }
}

/** Where the kernel counts kills for want of memory: cgroup v2, then v1. */
const OOM_COUNTERS = ['memory.events', 'memory.oom_control']

/** Kills for want of memory that the cgroups have counted so far. */
export async function countOomKills(cgroups: readonly string[]): Promise<number> {
  const files = cgroups.flatMap((cgroup) => OOM_COUNTERS.map((name) => join(cgroup, name)))
  const counts = await Promise.all(files.map(readOomKills))
  return counts.reduce((sum, count) => sum + count, 0)
}

async function readOomKills(path: string): Promise<number> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOTDIR')) return '' // another controller, or already removed
    throw error
  })
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
}
