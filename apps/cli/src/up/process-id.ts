import { readFile } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'
import { z } from 'zod'

/** A pid alone may come to name another process; its start time (in clock ticks since boot) tells them apart. */
export const processIdSchema = z.object({ pid: z.number().int().positive(), startTicks: z.string() })
export type ProcessId = z.infer<typeof processIdSchema>

async function statFields(pid: number): Promise<readonly string[] | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8')
    // The second field is the program's name in parentheses and may hold anything; fields are counted after it, proc(5).
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined
    throw error
  }
}

const STATE_FIELD = 0
const START_FIELD = 19

export async function identify(pid: number): Promise<ProcessId | undefined> {
  const startTicks = (await statFields(pid))?.[START_FIELD]
  return startTicks === undefined ? undefined : { pid, startTicks }
}

/** False when it ended, a zombie included, and when the pid belongs to a later process. */
export async function isRunning(id: ProcessId): Promise<boolean> {
  const fields = await statFields(id.pid)
  return fields !== undefined && fields[START_FIELD] === id.startTicks && fields[STATE_FIELD] !== 'Z'
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
