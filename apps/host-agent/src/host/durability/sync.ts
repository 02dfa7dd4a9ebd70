import { AppError } from '@wrenn/base'
import { runForResult } from '../exec.js'

/** Long enough for the dirty pages of a large guest on a slow disk; an abort ends the wait at once. */
const SYNC_TIMEOUT_MS = 30 * 60_000

/** How the wait for a disk is ended; the kernel goes on writing. */
export interface SyncOptions {
  readonly signal?: AbortSignal | undefined
}

/**
 * fdatasync(2) of one file; also what another process has written through a mapping of it. A child process does it: a sync
 * that waits for a disk would otherwise hold one of the four threads that all file access of this process shares.
 * @throws AppError `engine_failure`, `disk_full`; the signal's reason at once (the kernel may still be writing then).
 */
export async function syncData(path: string, options: SyncOptions = {}): Promise<void> {
  await sync(['--data', '--', path], options)
}

/** fsync(2) of files and directories, one after the other in the given order; otherwise as `syncData`. */
export async function syncAll(paths: readonly string[], options: SyncOptions = {}): Promise<void> {
  await sync(['--', ...paths], options)
}

async function sync(args: readonly string[], options: SyncOptions): Promise<void> {
  const { exitCode, stderr } = await runForResult('sync', args, {
    timeoutMs: SYNC_TIMEOUT_MS,
    ...(options.signal ? { signal: options.signal } : {}),
  })
  if (exitCode === 0) return
  const code = stderr.includes('No space left') ? 'disk_full' : 'engine_failure'
  throw new AppError(code, `Writing files out to the disk failed: ${stderr.trim() || `exit code ${exitCode}`}`)
}
