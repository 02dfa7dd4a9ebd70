import { type FileHandle, open, readdir, readFile, readlink, realpath, rm } from 'node:fs/promises'
import { join } from 'node:path'
import {
  AppError,
  DirectoryLock,
  endHolders,
  identify,
  isErrno,
  lifelinePath,
  type ProcessId,
  type StopStep,
  UndoStack,
  waitFor,
} from '@wrenn/base'
import { SOCKET_FILE } from './socket-dir.js'

/** A server that somebody else has started and is just ending. */
const FOREIGN_SERVER_GRACE_MS = 3000

/** Fast stop, which waits for the checkpoint; workers of a server that was killed end by themselves, or by the second. */
const leftServerLadder: readonly StopStep[] = [
  { signal: 'SIGINT', graceMs: 10_000 },
  { signal: 'SIGKILL', graceMs: 10_000 },
]

/** The right to start a server in a directory. */
export interface Ownership extends AsyncDisposable {
  /** To be open in every process of the server. */
  readonly lifeline: FileHandle
}

/**
 * Makes this process the only one that starts servers in `dir`, until disposed or dead, and ends what a dead one has left.
 * @throws AppError `conflict` with the pid of the server of the living owner
 */
export async function takeOwnership(dir: string): Promise<Ownership> {
  await using undo = new UndoStack()
  const lock = await lockOf(dir)
  await undo.defer(() => lock[Symbol.asyncDispose]())
  await endServer(dir)
  const lifeline = await open(lifelineOf(dir), 'a', 0o600)
  await undo.defer(() => lifeline.close())
  const held = undo.move()
  return { lifeline, [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() }
}

/**
 * Ends a server, or an `initdb`, whose starter is dead; does nothing where there is none.
 * @returns what it found
 * @throws AppError `conflict` when the starter lives
 */
export async function endLeftServer(dir: string): Promise<readonly ProcessId[]> {
  try {
    await using _lock = await lockOf(dir)
    return await endServer(dir)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

async function endServer(dir: string): Promise<readonly ProcessId[]> {
  return await endHolders(lifelineOf(dir), leftServerLadder)
}

function lifelineOf(dir: string): string {
  return lifelinePath(join(dir, 'server'))
}

async function lockOf(dir: string): Promise<DirectoryLock> {
  try {
    return await DirectoryLock.take('postgres', dir)
  } catch (error) {
    if (!AppError.is(error, 'conflict')) throw error
    const dataDir = join(dir, 'data')
    throw (await owned(dataDir)) ?? error
  }
}

/**
 * Makes sure that no server that somebody else has started works on the data directory, and clears what one that was killed
 * has left in it and beside its socket. The pids in those files prove nothing: after a reboot they may be anybody's, and as
 * long as init has not collected a killed server's status, the next one takes it for alive and refuses to start.
 * @throws AppError `conflict` with the pid of the living owner.
 */
export async function clearTraces(dataDir: string, socketDir: string): Promise<void> {
  try {
    await waitFor(async () => ((await processesIn(dataDir)).length === 0 ? true : undefined), {
      timeoutMs: FOREIGN_SERVER_GRACE_MS,
      intervalMs: 100,
      what: 'the former server to end',
    })
  } catch (error) {
    if (!AppError.is(error, 'timeout')) throw error
    throw (await owned(dataDir)) ?? error
  }
  const traces = [join(dataDir, 'postmaster.pid'), join(socketDir, SOCKET_FILE), join(socketDir, `${SOCKET_FILE}.lock`)]
  for (const path of traces) await rm(path, { force: true })
}

/** Processes that live in `dataDir`: the server and each of its workers have it as their working directory. */
async function processesIn(dataDir: string): Promise<number[]> {
  const found: number[] = []
  const home = await realpath(dataDir).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  })
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      if ((await readlink(`/proc/${name}/cwd`)) === home && (await identify(Number(name)))) found.push(Number(name))
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

async function owned(dataDir: string): Promise<AppError | undefined> {
  const living = await processesIn(dataDir)
  const recorded = await readPidFile(join(dataDir, 'postmaster.pid'))
  const pid = recorded !== undefined && living.includes(recorded) ? recorded : living[0]
  if (pid === undefined) return undefined
  return new AppError(
    'conflict',
    `Another PostgreSQL (pid ${pid}) is using ${dataDir}. Stop the Wrenn that started it, or end it with \`kill -INT ${pid}\`.`,
    { details: { pid } },
  )
}
