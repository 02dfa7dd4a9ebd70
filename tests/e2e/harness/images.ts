import { execFile } from 'node:child_process'
import { access, chmod, constants, copyFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** What a host makes from nothing but packages and its own sources, and would make again; by its digests it knows what fits. */
const POOL_FOLDERS = ['layers', 'templates']

/**
 * Keeps the images and warm shapes of the host in `dir` for hosts of other suites. `keptDir` appears when all is in it.
 */
export async function keepImages(dir: string, keptDir: string): Promise<void> {
  const draft = await mkdtemp(`${keptDir}.`)
  try {
    await copyInto(
      draft,
      POOL_FOLDERS.map((name) => join(dir, 'pool', name)),
    )
    await rename(draft, keptDir)
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

/**
 * Gives a host that has never run in `dir` the images that `keepImages` kept, so that it need not make them. Without any it
 * makes its own.
 */
export async function plantImages(keptDir: string, dir: string, poolSizeMib: number): Promise<void> {
  if (!(await exists(keptDir))) return
  const pool = join(dir, 'pool')
  const isMount = !(await clonesFiles(dir))
  await mkdir(pool, { mode: 0o711 })
  if (isMount) await mountNewPool(join(dir, 'pool.img'), pool, poolSizeMib)
  try {
    await copyInto(
      pool,
      POOL_FOLDERS.map((name) => join(keptDir, name)),
    )
  } finally {
    if (isMount) await run('umount', [pool])
  }
}

/** As the host makes it where the directory cannot clone files. */
async function mountNewPool(image: string, target: string, sizeMib: number): Promise<void> {
  await run('truncate', ['--size', `${sizeMib}M`, image])
  await chmod(image, 0o600)
  await run('mkfs.btrfs', ['--quiet', image])
  await run('mount', ['-o', 'loop', image, target])
}

async function clonesFiles(dir: string): Promise<boolean> {
  const probe = await mkdtemp(join(dir, 'clone-'))
  try {
    await writeFile(join(probe, 'a'), 'some')
    await copyFile(join(probe, 'a'), join(probe, 'b'), constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch {
    return false // for whatever reason: an image does on any file system
  } finally {
    await rm(probe, { recursive: true })
  }
}

/** Holes stay holes. */
async function copyInto(target: string, paths: readonly string[]): Promise<void> {
  await run('cp', ['--archive', ...paths, target])
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
