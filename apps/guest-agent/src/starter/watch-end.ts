import { readIfThere } from '../process/birthmark.js'

const LOOK_EVERY_MS = 200

/** Calls `onEnd` once when the process, which is no child of ours, has ended; how is not to be known. */
export function watchEnd(pid: number, onEnd: () => void): void {
  const before = startOf(pid)
  const timer = setInterval(() => {
    if (before !== undefined && startOf(pid) === before) return
    clearInterval(timer)
    onEnd()
  }, LOOK_EVERY_MS)
  timer.unref()
}

/** Its start time, by which a number that came back is told from the process before; `undefined` when it has ended. */
function startOf(pid: number): string | undefined {
  const text = readIfThere(`/proc/${pid}/stat`)
  // The name in parentheses may hold anything; state is field 3 and start time field 22 of proc_pid_stat(5).
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ') ?? []
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19]
}
