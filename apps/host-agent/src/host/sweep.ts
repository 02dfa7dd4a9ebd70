import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno, type Logger, waitFor } from '@wrenn/base'

const KILL_TIMEOUT_MS = 10_000

export interface SweepOptions {
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
  for (const { pid, vmId } of orphans) {
    options.logger.warn({ pid, vmId }, 'sweep.process')
    kill(pid)
  }
  await waitFor(() => (orphans.some(({ pid }) => isAlive(pid)) ? undefined : true), {
    timeoutMs: KILL_TIMEOUT_MS,
    what: 'orphaned engine processes to end',
  })
  for (const dir of [options.runDir, options.filesDir]) {
    for (const name of await entries(dir)) {
      if (options.keep.has(name)) continue
      options.logger.info({ path: join(dir, name) }, 'sweep.files')
      await rm(join(dir, name), { recursive: true, force: true })
    }
  }
}

/** Processes whose command line names a VM's directory below `runDir`. */
async function engineProcesses(runDir: string): Promise<{ pid: number; vmId: string }[]> {
  const found: { pid: number; vmId: string }[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '') // ended meanwhile
    if (!command.startsWith('qemu-') && !command.includes('/qemu-')) continue
    const at = command.indexOf(`${runDir}/`)
    const vmId = at === -1 ? undefined : /^[a-z0-9-]+/.exec(command.slice(at + runDir.length + 1))?.[0]
    if (vmId !== undefined) found.push({ pid: Number(name), vmId })
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

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !isErrno(error, 'ESRCH')
  }
}
