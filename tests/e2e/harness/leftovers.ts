import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { entries, processesOf } from './host.js'
import { type Platform, wrenn } from './platform.js'
import { eventually } from './wait.js'

const SCRATCH_ROOT = '/var/tmp'
const OWNER = 'owner'

/** Says whose a scratch directory is. */
export async function claimScratch(scratch: string): Promise<void> {
  await writeFile(join(scratch, OWNER), String(process.pid))
}

/**
 * Takes down what runs that were killed have left: their platforms have the names and ranges of the next one. Scratch directories
 * are those whose name begins with `prefix`; each has its WRENN_DIR in `d`. Nothing is touched while another run lives.
 */
export async function removeLeftovers(
  prefix: string,
  { artefacts, env }: Pick<Platform, 'artefacts' | 'env'>,
): Promise<void> {
  const names = (await entries(SCRATCH_ROOT)).filter((name) => name.startsWith(prefix))
  const found = await Promise.all(
    names.map((name) => join(SCRATCH_ROOT, name)).map(async (path) => ({ path, owner: await ownerOf(path) })),
  )
  if (found.some(({ owner }) => owner !== undefined && owner !== process.pid)) return
  for (const { path } of found.filter(({ owner }) => owner === undefined)) {
    const left = { artefacts, env: { ...env, WRENN_DIR: join(path, 'd') } }
    await wrenn(left, ['down', '--stop-capsules'])
    await killAll(path)
    await wrenn(left, ['clean', '--yes']) // what it could not remove the caller finds
    await rm(path, { recursive: true, force: true })
  }
}

/** The living run that has a scratch directory. */
async function ownerOf(scratch: string): Promise<number | undefined> {
  const pid = await readFile(join(scratch, OWNER), 'utf8').catch(() => 'none')
  // A pid is given anew; what the runs are started with is not.
  const argv = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return argv.includes('vitest') ? Number(pid) : undefined
}

/** Host agents that tests have started by themselves, and their guests. */
async function killAll(scratch: string): Promise<void> {
  for (const { pid } of await processesOf(scratch)) process.kill(pid, 'SIGKILL')
  await eventually(`the processes of ${scratch} to be gone`, async () =>
    (await processesOf(scratch)).length === 0 ? true : undefined,
  )
}
