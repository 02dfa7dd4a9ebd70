import { readdirSync, readlinkSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { AppError, isErrno } from './errors.js'
import { identify, isDying, isRunning, type ProcessId, signalProcess } from './process-id.js'
import type { StopStep } from './stop-child.js'
import { waitFor } from './wait.js'

/**
 * A lifeline is a file that a service and every tool it starts keep open, for nothing but to be found by it: whoever has it
 * open after its owner's death was left behind. No pid has to be written down in time, none can be another's by now, and a
 * process is found from the moment it is forked. What is to outlive its starter, as guests are, does not get it.
 */
const SUFFIX = '.lifeline'
/** Where those who inherit it have it: the first after stdin, stdout and stderr. */
const DESCRIPTOR = 3

const HOLDER_POLL_MS = 20
/** Ask, then insist. */
const defaultLadder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 20_000 },
  { signal: 'SIGKILL', graceMs: 10_000 },
]

/** @param path without an ending */
export function lifelinePath(path: string): string {
  return `${path}${SUFFIX}`
}

/** To be added to the `stdio` of tools: our own lifeline where whoever started us gave us one. */
export function inheritedLifeline(): readonly number[] {
  try {
    return withoutMark(readlinkSync(`/proc/self/fd/${DESCRIPTOR}`)).endsWith(SUFFIX) ? [DESCRIPTOR] : []
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

/**
 * Ends every process, other than ourselves, that has the lifeline open, and those they start meanwhile: to be called when
 * their owner is known to be dead. Processes that are being killed are waited for.
 * @returns whom it found
 * @throws AppError `engine_failure` when one survives the whole ladder
 */
export async function endHolders(
  path: string,
  ladder: readonly StopStep[] = defaultLadder,
): Promise<readonly ProcessId[]> {
  const found: ProcessId[] = []
  const target = await whereItIs(path)
  for (;;) {
    const holders = await holdersOf(target)
    if (holders.length === 0) return found
    found.push(...holders)
    await endAll(holders, target, ladder)
  }
}

/** As the kernel names it; a file that was removed may still be somebody's. */
async function whereItIs(path: string): Promise<string> {
  try {
    return join(await realpath(dirname(path)), basename(path))
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return path
    throw error
  }
}

async function holdersOf(target: string): Promise<readonly ProcessId[]> {
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
  const holders = pids.filter((pid) => pid !== process.pid && hasOpen(pid, target))
  return (await Promise.all(holders.map(identify))).filter((id) => id !== undefined)
}

async function endAll(holders: readonly ProcessId[], target: string, ladder: readonly StopStep[]): Promise<void> {
  for (const { signal, graceMs } of ladder) {
    await Promise.all(holders.map((id) => signalProcess(id, signal)))
    const areGone = async (): Promise<true | undefined> =>
      (await Promise.all(holders.map((id) => isLeft(id, target)))).includes(true) ? undefined : true
    try {
      await waitFor(areGone, { timeoutMs: graceMs, intervalMs: HOLDER_POLL_MS, what: 'what was left to end' })
      return
    } catch (error) {
      if (!AppError.is(error, 'timeout')) throw error
    }
  }
  const pids = holders.map(({ pid }) => pid).join(', ')
  throw new AppError(
    'engine_failure',
    `What an earlier run left survives SIGKILL (pid ${pids}): it hangs inside the kernel.`,
  )
}

/** A forked process lets go of the file when it becomes a program that is not to have it: then it is not ours to end. */
async function isLeft(id: ProcessId, target: string): Promise<boolean> {
  return (await isRunning(id)) && (hasOpen(id.pid, target) || (await isDying(id)))
}

function hasOpen(pid: number, target: string): boolean {
  const isTarget = (link: string): boolean => withoutMark(link) === target
  const own = linksIn(`/proc/${pid}/fd`)
  if (own.length > 0) return own.some(isTarget)
  // When the first thread has ended, those that have not still have the files.
  const threads = orNothing(() => readdirSync(`/proc/${pid}/task`))
  return threads.some((thread) => linksIn(`/proc/${pid}/task/${thread}/fd`).some(isTarget))
}

function linksIn(dir: string): readonly string[] {
  return orNothing(() => readdirSync(dir)).flatMap((name) => orNothing(() => [readlinkSync(`${dir}/${name}`)]))
}

/** A file that was removed is still the same lifeline; proc(5). */
function withoutMark(link: string): string {
  return link.replace(/ \(deleted\)$/, '')
}

/** Of processes that end while we look, and of those that are not ours to look at. */
function orNothing(read: () => readonly string[]): readonly string[] {
  try {
    return read()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES', 'EPERM')) return []
    throw error
  }
}
