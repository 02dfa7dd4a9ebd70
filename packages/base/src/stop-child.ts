import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** One rung of a kill ladder: send `signal`, then wait up to `graceMs` for the process to end. */
export interface StopStep {
  readonly signal: NodeJS.Signals
  readonly graceMs: number
}

/** Ask, then insist. */
export const politeLadder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 10_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]

/** Whether Node has told of its end, by exit code or signal. To wait for it, listen to `exit` only while this is false. */
export function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

/**
 * Ends a child process by climbing `ladder` until it is gone; a child that already ended is fine.
 * @returns the signal that was needed, `undefined` when none was, and the last one when even that did not help.
 */
export async function stopChild(
  child: ChildProcess,
  ladder: readonly StopStep[] = politeLadder,
): Promise<NodeJS.Signals | undefined> {
  let used: NodeJS.Signals | undefined
  for (const step of ladder) {
    if (hasExited(child) || child.pid === undefined) return used
    used = step.signal
    const signal = AbortSignal.timeout(step.graceMs)
    const gone = once(child, 'exit', { signal }).then(
      () => true,
      () => hasExited(child),
    )
    child.kill(step.signal)
    if (await gone) return used
  }
  return used
}
