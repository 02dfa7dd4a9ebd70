import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { AppError, hasExited, type StopStep, stopChild } from '@wrenn/base'
import type { CliConfig } from '../config.js'
import { findRoot } from './layout.js'

const ladder: readonly StopStep[] = [
  { signal: 'SIGTERM', graceMs: 240_000 },
  { signal: 'SIGKILL', graceMs: 5_000 },
]

/** How a platform of our own is started and followed. */
export interface ChildPlatformOptions {
  readonly config: CliConfig
  /** Told every line it says to people while it starts. */
  readonly onNote: (line: string) => void
  /** Gives the start up; what has started is then ended. */
  readonly signal: AbortSignal
}

/** A `wrenn up` of our own, ended with its capsules when disposed. */
export async function startChildPlatform(options: ChildPlatformOptions): Promise<AsyncDisposable> {
  const { config, onNote, signal } = options
  const args = ['up', '--json', '--stop-capsules', '--dir', config.dir, '--port', String(config.port)]
  const child = spawn(process.execPath, [join(findRoot(), 'apps/cli/bin/wrenn.mjs'), ...args], {
    env: config.inherited,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const last: string[] = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    last.push(line)
    if (last.length > 5) last.shift()
    if (!line.startsWith('{')) onNote(line) // The error it ended with is thrown below.
  })
  const stop = { [Symbol.asyncDispose]: async () => void (await stopChild(child, ladder)) }
  try {
    await Promise.race([once(child.stdout, 'data', { signal }), once(child, 'exit', { signal })])
    if (!hasExited(child)) return stop
    throw platformError(last)
  } catch (error) {
    await stop[Symbol.asyncDispose]()
    throw error
  }
}

/** In JSON mode its last line is the error it ended with. */
function platformError(lines: readonly string[]): AppError {
  try {
    const { error }: { error: { code: string; message: string } } = JSON.parse(lines.at(-1) ?? '')
    return new AppError(error.code, error.message)
  } catch {
    return new AppError('engine_failure', `The platform did not start: ${lines.join(' ')}`)
  }
}
