import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import { entries, processesOf } from './host.js'
import { eventually } from './wait.js'

const SCRATCH_ROOT = '/var/tmp'
const OWNER = 'owner'

/** Says whose a scratch directory is. */
export async function claimScratch(scratch: string): Promise<void> {
  await writeFile(join(scratch, OWNER), String(process.pid))
}

/**
 * Takes down what runs that were killed have left: their hosts have the names and ranges of the next one. Scratch directories are
 * those whose name begins with `prefix`; that of a run may be gone while its groups and tables are not, so that `own`, which this run
 * has claimed, is taken down as well. Nothing is touched while another run lives.
 */
export async function removeLeftovers(
  prefix: string,
  own: string,
  takeDown: (scratch: string) => Promise<unknown>,
): Promise<void> {
  const paths = (await entries(SCRATCH_ROOT))
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(SCRATCH_ROOT, name))
  const owned = await Promise.all(paths.map(async (path) => ({ path, ...(await ownerOf(path)) })))
  if (owned.some(({ pid, lives }) => lives && pid !== process.pid)) return
  for (const { path } of owned.filter(({ pid, lives }) => pid !== undefined && !lives)) {
    await takeDown(path)
    await rm(path, { recursive: true, force: true })
  }
  await takeDown(own)
}

/** Every process whose command line names something below `path`: host agents that tests have started by themselves, guests. */
export async function killProcesses(path: string): Promise<void> {
  for (const { pid } of await processesOf(path)) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error // it may end by itself meanwhile
    }
  }
  await eventually(`the processes of ${path} to be gone`, async () =>
    (await processesOf(path)).length === 0 ? true : undefined,
  )
}

/** The run that has a scratch directory; no pid where none has claimed it. */
async function ownerOf(scratch: string): Promise<{ readonly pid: number | undefined; readonly lives: boolean }> {
  const text = await readFile(join(scratch, OWNER), 'utf8').catch(() => '')
  const pid = Number(text)
  if (!(pid > 0)) return { pid: undefined, lives: false } // being claimed, perhaps
  // A pid is given anew; what the runs are started with is not.
  const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return { pid, lives: argv.includes('vitest') }
}
