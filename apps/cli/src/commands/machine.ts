import { createInterface } from 'node:readline/promises'
import { AppError, isErrno, isRunning, type ProcessId, removeEntries, signalProcess, waitFor } from '@wrenn/base'
import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, contextOf, ExitCode, withDir, withJson } from '../context.js'
import { type Layout, layoutOf, ownEntries } from '../up/layout.js'
import { claimDirectory, findRunning } from '../up/record.js'
import { requireRoot } from '../up/requirements.js'
import { askHostAgent } from '../up/service-command.js'

/** Ending many capsules takes a while; a supervisor that needs longer says so in its log. */
const DOWN_TIMEOUT_MS = 240_000

/** `wrenn down`: stops the `wrenn up` of a directory, and what a killed one left behind. No platform there is fine. */
export function addDown(program: Command): void {
  const command = program
    .command('down')
    .description('stop the `wrenn up` of a directory; capsules keep running')
    .option('--stop-capsules', 'end all capsules too')
  withDir(withJson(command)).action(async (options: CommonOptions & { stopCapsules?: boolean }) => {
    const { config, output } = contextOf(options)
    const layout = layoutOf(config.dir)
    const running = await findRunning(layout)
    if (running) await stopSupervisor(running.supervisor, options.stopCapsules ? 'SIGUSR2' : 'SIGTERM')
    const left = await endWhatIsLeft(layout)
    if (running) {
      const { pid } = running.supervisor
      output.result({ stopped: true, pid }, () => `Stopped (pid ${pid}).`)
    } else if (left.length > 0) {
      output.result({ stopped: true, left }, () => `Stopped what a killed \`wrenn up\` had left: ${left.join(', ')}.`)
    } else {
      output.result({ stopped: false }, () => `Nothing runs in ${layout.dir}.`)
    }
  })
}

async function stopSupervisor(supervisor: ProcessId, signal: NodeJS.Signals): Promise<void> {
  await signalSupervisor(supervisor, signal)
  await waitFor(async () => ((await isRunning(supervisor)) ? undefined : true), {
    timeoutMs: DOWN_TIMEOUT_MS,
    intervalMs: 50,
    what: `the platform (pid ${supervisor.pid}) to stop`,
  })
}

/** Of a supervisor that was killed, be it while it stopped. Waits for another `wrenn down` that does the same. */
async function endWhatIsLeft(layout: Layout): Promise<readonly string[]> {
  if (process.getuid?.() !== 0) return []
  const end = async (): Promise<readonly string[] | undefined> => {
    try {
      await using directory = await claimDirectory(layout)
      return directory.stopped
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return []
      if (!AppError.is(error, 'conflict')) throw error
      return (await findRunning(layout)) ? [] : undefined
    }
  }
  return await waitFor(end, { timeoutMs: DOWN_TIMEOUT_MS, intervalMs: 50, what: `the use of ${layout.dir} to end` })
}

async function signalSupervisor(supervisor: ProcessId, signal: NodeJS.Signals): Promise<void> {
  try {
    await signalProcess(supervisor, signal)
  } catch (error) {
    if (!isErrno(error, 'EPERM')) throw error
    throw new AppError('forbidden', `The platform (pid ${supervisor.pid}) belongs to root: run this with sudo.`)
  }
}

/**
 * `wrenn clean`: leaves nothing of a directory's platform on the machine. Needs root and asks first; refused while the
 * platform runs.
 */
export function addClean(program: Command): void {
  const command = program
    .command('clean')
    .description('remove from this machine all that belongs to a directory: capsules, mounts, networks, files')
    .option('--yes', 'do not ask')
  withDir(withJson(command)).action(async (options: CommonOptions & { yes?: boolean }) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const layout = layoutOf(config.dir)
    const running = await findRunning(layout)
    if (running) {
      throw new AppError(
        'conflict',
        `Wrenn runs in ${layout.dir} (pid ${running.supervisor.pid}): run \`wrenn down\` first.`,
      )
    }
    if (!options.yes) await confirm(`Remove everything in ${layout.dir}, capsules and their files included?`)
    await using _directory = await claimExisting(layout)
    await askHostAgent({ args: ['clean'], config, dir: layout.dir, schema: z.looseObject({ cleaned: z.string() }) })
    await removeEntries(layout.dir, ownEntries(layout))
    output.result({ cleaned: true, dir: layout.dir }, () => `Cleaned ${layout.dir}.`)
  })
}

/** No `wrenn up` may start while its directory is taken apart. */
async function claimExisting(layout: Layout): Promise<AsyncDisposable | undefined> {
  try {
    return await claimDirectory(layout)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new AppError('invalid_request', 'Nobody is there to ask: give --yes.')
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await prompt.question(`${question} [y/N] `)
    if (!/^y(es)?$/i.test(answer.trim())) throw new ExitCode(1)
  } finally {
    prompt.close()
  }
}
