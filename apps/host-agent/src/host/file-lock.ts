import { AppError, stopChild } from '@wrenn/base'
import { missingPackage } from './images/command.js'
import { spawnTool } from './spawn-tool.js'

const RELEASE_LADDER = [
  { signal: 'SIGTERM', graceMs: 2_000 },
  { signal: 'SIGKILL', graceMs: 2_000 },
] as const

interface FileLockOptions {
  readonly signal?: AbortSignal | undefined
  /** Called once when somebody else has the lock for longer than a moment. */
  readonly onWait?: () => void
}

/**
 * Waits until this process alone has the lock. It is the kernel's (flock(2)), held by a child that lives as long as its
 * stdin: whoever is killed lets go at once, so no stale lock can exist and no pid has to be guessed about.
 */
export async function acquireFileLock(path: string, options: FileLockOptions = {}): Promise<AsyncDisposable> {
  options.signal?.throwIfAborted()
  const holder = spawnTool('flock', ['--no-fork', path, 'sh', '-c', 'echo locked; exec cat'], {
    stdin: 'pipe',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
  })
  holder.stderr.resume()
  const release = async (): Promise<void> => {
    holder.stdin.end()
    await stopChild(holder, RELEASE_LADDER)
  }
  const abort = (): void => void holder.kill('SIGKILL')
  const waiting = setTimeout(() => options.onWait?.(), 500)
  options.signal?.addEventListener('abort', abort, { once: true })
  try {
    await new Promise<void>((resolve, reject) => {
      holder.stdin.on('error', () => {}) // the holder was killed: `exit` says so
      holder.once('error', () => reject(missingPackage('flock', 'util-linux')))
      holder.once('exit', () => reject(new AppError('internal', `The lock ${path} was lost while waiting for it.`)))
      holder.stdout.once('data', () => resolve())
    })
  } catch (error) {
    options.signal?.throwIfAborted()
    throw error
  } finally {
    clearTimeout(waiting)
    options.signal?.removeEventListener('abort', abort)
  }
  return { [Symbol.asyncDispose]: release }
}
