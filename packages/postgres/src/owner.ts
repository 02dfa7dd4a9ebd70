import { readdir, readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, isErrno, waitFor } from '@wrenn/base'

/** A server whose parent was just killed is still writing its last checkpoint. */
const DYING_SERVER_GRACE_MS = 3000

/** Processes that live in `dataDir`: the server and each of its workers have it as their working directory. */
async function processesIn(dataDir: string): Promise<number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      if ((await readlink(`/proc/${name}/cwd`)) === dataDir) found.push(Number(name))
    } catch (error) {
      // The process ended meanwhile, or belongs to another user and so cannot be our server.
      if (!isErrno(error, 'ENOENT', 'ESRCH', 'EACCES', 'EPERM')) throw error
    }
  }
  return found
}

async function readPidFile(path: string): Promise<number | undefined> {
  try {
    const pid = Number.parseInt((await readFile(path, 'utf8')).split('\n', 1)[0] ?? '', 10)
    return Number.isInteger(pid) && pid > 0 ? pid : undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

/**
 * Makes sure no other server owns the data directory, and clears a pid file that a killed one left behind. The file's pid
 * alone proves nothing: after a reboot it may belong to any process, and the server would refuse to start for its sake.
 * @throws AppError `conflict` with the pid of the living owner.
 */
export async function assertUnowned(dataDir: string): Promise<void> {
  try {
    await waitFor(async () => ((await processesIn(dataDir)).length === 0 ? true : undefined), {
      timeoutMs: DYING_SERVER_GRACE_MS,
      intervalMs: 100,
      what: 'the former server to end',
    })
  } catch (error) {
    if (!AppError.is(error, 'timeout')) throw error
    throw await owned(dataDir)
  }
  await rm(join(dataDir, 'postmaster.pid'), { force: true })
}

async function owned(dataDir: string): Promise<AppError> {
  const living = await processesIn(dataDir)
  const recorded = await readPidFile(join(dataDir, 'postmaster.pid'))
  const pid = recorded !== undefined && living.includes(recorded) ? recorded : living[0]
  return new AppError(
    'conflict',
    `Another PostgreSQL (pid ${pid}) is using ${dataDir}. Stop the Wrenn that started it, or end it with \`kill -INT ${pid}\`.`,
    { details: { pid } },
  )
}
