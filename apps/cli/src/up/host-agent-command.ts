import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { AppError } from '@wrenn/base'
import type { CliConfig } from '../config.js'
import { appBundle } from './layout.js'

export interface HostAgentRun {
  readonly args: readonly string[]
  readonly config: CliConfig
  readonly dir: string
  /** Each line of its standard output. */
  readonly onLine: (line: string) => void
  readonly signal?: AbortSignal
}

/**
 * Runs one of the host agent's own commands (`doctor`, `clean`, `image build`): they need the machine, not a running
 * platform. What it says on stderr goes to ours.
 * @returns its exit code.
 */
export async function runHostAgent(run: HostAgentRun): Promise<number> {
  const child = spawn(process.execPath, [appBundle('host-agent'), ...run.args], {
    env: { ...run.config.inherited, WRENN_DIR: run.dir, WRENN_UID_BASE: String(run.config.uidBase) },
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(run.signal ? { signal: run.signal, killSignal: 'SIGTERM' as const } : {}),
  })
  const lines = createInterface({ input: child.stdout })
  lines.on('line', run.onLine)
  const [code, signal]: unknown[] = await once(child, 'close')
  if (signal !== null) throw new AppError('engine_failure', `The host agent was ended by ${String(signal)}.`)
  return Number(code)
}
