import { open, readdir, rename, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import { run, runForResult } from '../exec.js'
import { isThere } from '../is-there.js'
import { holdersOf, mountAt } from '../mounts.js'

const GIB = 2 ** 30
const DEFAULT_FRACTION = 0.8
const MINIMUM_DEFAULT_BYTES = 8 * GIB
/** What mkfs.btrfs needs for a file system that can be worked with. */
const MINIMUM_BYTES = 256 * 2 ** 20

interface LoopImageOptions {
  readonly dir: string
  readonly sizeBytes?: number
  readonly logger: Logger
}

interface LoopDevice {
  readonly name: string
  readonly backingFile: string
}

/** The pool's image of a platform's directory; sparse, so that it takes only what is in it. */
export function imagePath(dir: string): string {
  return join(dir, 'pool.img')
}

/** Makes `<dir>/pool.img` if it is not there, attaches it if it is not attached, mounts it if it is not mounted. */
export async function openLoopImage(options: LoopImageOptions): Promise<void> {
  const image = imagePath(options.dir)
  const target = join(options.dir, 'pool')
  await refuseHidingFiles(target)
  if (!(await isThere(image))) await makeImage(image, options)
  const device = (await devicesOf(image))[0]?.name ?? (await attach(image))
  // discard gives the blocks of removed files back to the disk below the sparse image.
  await run('mount', ['-t', 'btrfs', '-o', 'noatime,discard=async', device, target])
  options.logger.info({ image, device, target }, 'pool.mounted')
}

/** Unmounts and detaches; both steps are skipped when already done. */
export async function closeLoopImage(dir: string): Promise<void> {
  const image = imagePath(dir)
  const target = join(dir, 'pool')
  const devices = await devicesOf(image)
  const mount = await mountAt(target)
  if (mount && devices.some(({ name }) => name === mount.source)) await unmount(target)
  for (const { name } of devices) await detach(name)
}

/** The loop devices whose backing file is `image`. */
export async function devicesOf(image: string): Promise<readonly LoopDevice[]> {
  const devices = await listLoopDevices()
  return devices.filter(({ backingFile }) => backingFile === image)
}

/** Every attached loop device of the machine, read from sysfs: no process to spawn. */
export async function listLoopDevices(): Promise<readonly LoopDevice[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'))
  const found = await Promise.all(names.map(readDevice))
  return found.filter((device) => device !== undefined)
}

async function readDevice(name: string): Promise<LoopDevice | undefined> {
  try {
    const file = await open(`/sys/block/${name}/loop/backing_file`)
    try {
      return { name: `/dev/${name}`, backingFile: (await file.readFile('utf8')).trim() }
    } finally {
      await file.close()
    }
  } catch (error) {
    // A loop device without a file has no `loop` folder.
    if (isErrno(error, 'ENOENT', 'ENXIO', 'ENODEV')) return undefined
    throw error
  }
}

async function makeImage(image: string, options: LoopImageOptions): Promise<void> {
  const sizeBytes = options.sizeBytes ?? (await defaultSize(options.dir))
  if (sizeBytes < MINIMUM_BYTES) {
    throw new AppError('invalid_config', `The pool's size must be at least ${MINIMUM_BYTES} bytes, not ${sizeBytes}.`)
  }
  const unfinished = `${image}.new`
  await rm(unfinished, { force: true })
  const file = await open(unfinished, 'wx', 0o600)
  try {
    await file.truncate(sizeBytes)
  } finally {
    await file.close()
  }
  await run('mkfs.btrfs', ['--quiet', '--label', 'wrenn-pool', unfinished], { timeoutMs: 120_000 })
  // Only a finished file system gets the name, so a crash in between costs nothing.
  await rename(unfinished, image)
  options.logger.info({ image, sizeBytes }, 'pool.image_created')
}

async function defaultSize(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir)
  const free = bavail * bsize
  const sizeBytes = Math.floor((free * DEFAULT_FRACTION) / GIB) * GIB
  if (sizeBytes >= MINIMUM_DEFAULT_BYTES) return sizeBytes
  throw new AppError(
    'disk_full',
    `${dir} has ${(free / GIB).toFixed(1)} GiB free; the pool needs ${MINIMUM_DEFAULT_BYTES / GIB / DEFAULT_FRACTION} GiB. Free some, or put WRENN_DIR on a larger disk.`,
    { details: { freeBytes: free } },
  )
}

/** A mount over a directory with files would hide them for good. */
async function refuseHidingFiles(target: string): Promise<void> {
  const entries = await readdir(target)
  if (entries.length === 0) return
  const problem = `${target} holds files but its file system cannot clone them`
  const remedy = (await isRebuildable(target, entries))
    ? `only images are there, which are built again when needed: remove them with \`rm -r ${entries.map((name) => join(target, name)).join(' ')}\`, then start again.`
    : "move them away so that the pool's image can be mounted there."
  throw new AppError('invalid_config', `${problem}; ${remedy}`)
}

/** Whether nothing is there but images, as what writes to an unmounted pool leaves them; other folders must be empty. */
async function isRebuildable(target: string, entries: readonly string[]): Promise<boolean> {
  for (const name of entries.filter((entry) => entry !== 'layers')) {
    const below = await readdir(join(target, name)).catch((error: unknown) => {
      if (isErrno(error, 'ENOTDIR')) return [name]
      throw error
    })
    if (below.length > 0) return false
  }
  return true
}

async function attach(image: string): Promise<string> {
  const base = ['--find', '--show']
  const direct = await runForResult('losetup', [...base, '--direct-io=on', image])
  if (direct.exitCode === 0) return direct.stdout.trim()
  return (await run('losetup', [...base, image])).trim()
}

async function detach(device: string): Promise<void> {
  const result = await runForResult('losetup', ['--detach', device])
  // Gone in the meantime (autoclear) is what we want.
  if (result.exitCode !== 0 && !result.stderr.includes('No such device')) {
    throw new AppError('engine_failure', `Detaching ${device} failed: ${result.stderr.trim()}`)
  }
}

async function unmount(target: string): Promise<void> {
  const result = await runForResult('umount', [target])
  if (result.exitCode === 0) return
  const holders = await holdersOf(target)
  const who = holders.map(({ pid, name }) => `${name} (pid ${pid})`).join(', ') || 'nobody found in /proc'
  throw new AppError('conflict', `${target} is still in use by ${who}; stop them and try again.`, {
    details: { holders, stderr: result.stderr.trim() },
  })
}
