import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { identify, isErrno, isRunning, type Logger, type ProcessId, signalProcess, waitFor } from '@wrenn/base'

const KILL_TIMEOUT_MS = 10_000

interface SweepOptions {
  /** One directory per VM; part of each engine process's command line. */
  readonly runDir: string
  /** `pool/capsules`. */
  readonly filesDir: string
  /** VMs that a record owns, with the process it knows: one that was launched and never recorded belongs to nobody. */
  readonly keep: ReadonlyMap<string, number | undefined>
  readonly logger: Logger
}

/** Removes engine processes, run directories and files of VMs that no record owns. */
export async function sweepVms(options: SweepOptions): Promise<void> {
  const orphans = (await engineProcesses(options.runDir)).filter(({ pid, vmId }) => options.keep.get(vmId) !== pid)
  for (const { pid, startTicks, vmId } of orphans) {
    options.logger.warn({ pid, vmId }, 'sweep.process')
    await signalProcess({ pid, startTicks }, 'SIGKILL')
  }
  // A zombie has ended: nothing is promised of when init collects its status.
  const areGone = async (): Promise<true | undefined> =>
    (await Promise.all(orphans.map(isRunning))).includes(true) ? undefined : true
  await waitFor(areGone, { timeoutMs: KILL_TIMEOUT_MS, what: 'orphaned engine processes to end' })
  for (const dir of [options.runDir, options.filesDir]) {
    for (const name of await entries(dir)) {
      if (options.keep.has(name)) continue
      options.logger.info({ path: join(dir, name) }, 'sweep.files')
      await rm(join(dir, name), { recursive: true, force: true })
    }
  }
}

interface EngineProcess extends ProcessId {
  readonly vmId: string
}

/** Processes whose command line names a VM's directory below `runDir`. */
async function engineProcesses(runDir: string): Promise<EngineProcess[]> {
  const found: EngineProcess[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '') // ended meanwhile
    // By what it was told: its program's name is the machine's owner's choice, and what is still to become it is told the same.
    if (!command.includes('\0-name\0guest=')) continue
    const at = command.indexOf(`${runDir}/`)
    const vmId = at === -1 ? undefined : /^[a-z0-9-]+/.exec(command.slice(at + runDir.length + 1))?.[0]
    const id = vmId === undefined ? undefined : await identify(Number(name))
    if (vmId !== undefined && id !== undefined) found.push({ ...id, vmId })
  }
  return found
}

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
