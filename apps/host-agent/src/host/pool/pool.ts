import { chmod, chown, constants, copyFile, mkdir, readdir, rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, type Logger } from '@wrenn/base'
import { acquireFileLock } from '../file-lock.js'
import { mountAt } from '../mounts.js'
import { closeLoopImage, devicesOf, imagePath, openLoopImage } from './loop-image.js'

/** Folders of the pool. Traversal only: a capsule's uid reaches its own files by full path and lists nobody else's. */
const FOLDERS = ['layers', 'templates', 'capsules', 'snapshots'] as const
const FOLDER_MODE = 0o711
const PROBE = '.clone-'

/** Kept free so that a full pool can still be worked on: the smaller of 1 GiB and 2 %. */
const RESERVE_BYTES = 2 ** 30
const RESERVE_FRACTION = 0.02

const fileSystemNames = new Map<number, string>([
  [0x9123683e, 'btrfs'],
  [0x58465342, 'xfs'],
  [0xef53, 'ext4'],
  [0x01021994, 'tmpfs'],
  [0x794c7630, 'overlayfs'],
  [0xca451a4e, 'bcachefs'],
])

/** Where the pool is, and how large it becomes where it must be an image. */
export interface PoolOptions {
  /** WRENN_DIR. */
  readonly dir: string
  /** Size of the loop image when one has to be made. @default 80 % of the free space */
  readonly sizeBytes?: number
  readonly logger: Logger
}

/**
 * Mode and owner of the clone, the mode first, so that no owner finds it more open than it is to be.
 * @default those of a new file of this process
 */
export interface CloneOptions {
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
}

/** Space of the pool, as guests and quotas feel it. */
export interface PoolUsage {
  readonly totalBytes: number
  readonly usedBytes: number
  /** What can really be written: with a loop image never more than the disk below it has. */
  readonly freeBytes: number
}

/** A directory whose files clone in constant time. */
export interface Pool {
  readonly path: string
  /** `btrfs`, `xfs`, … */
  readonly filesystem: string
  /** The btrfs image mounted at `path`, when the disk itself has no reflink. */
  readonly loopImage: string | undefined
  /** Reflinks `from` to `to`, which must not exist; removes `to` again when it fails. */
  clone(from: string, to: string, options?: CloneOptions): Promise<void>
  usage(): Promise<PoolUsage>
  /** @throws AppError `disk_full` when `bytes` more would eat into the reserve. */
  ensureSpace(bytes: number): Promise<void>
}

/**
 * Opens `<dir>/pool`, on the disk itself where it can reflink, else on a btrfs image `<dir>/pool.img` mounted there.
 * Idempotent, also after a crash between any two steps.
 * @throws AppError `disk_full` when there is no room for an image, `invalid_config` when the place is taken.
 */
export async function openPool(options: PoolOptions): Promise<Pool> {
  await using _lock = await lockPool(options.dir)
  return await openLocked(options)
}

/**
 * Opens the pool for `use` and, when it was not mounted before, closes it again; whoever opens it meanwhile waits for the end.
 * For what takes a moment, so that a command leaves the machine as it found it.
 */
export async function withOpenPool<Result>(options: PoolOptions, use: () => Promise<Result>): Promise<Result> {
  await using _lock = await lockPool(options.dir)
  const wasMounted = await isLoopMounted(options.dir)
  try {
    await openLocked(options)
    return await use()
  } finally {
    if (!wasMounted) await closeLoopImage(options.dir)
  }
}

/** Nobody may unmount the pool between another's look at the mount and its first file. */
async function lockPool(dir: string): Promise<AsyncDisposable> {
  await mkdir(join(dir, 'pool'), { recursive: true, mode: FOLDER_MODE })
  return await acquireFileLock(join(dir, 'pool.lock'))
}

async function openLocked(options: PoolOptions): Promise<Pool> {
  const path = join(options.dir, 'pool')
  await removeProbes(path)
  const native = await canClone(path)
  if (!native) await openLoopImage(options)
  if (!native && !(await canClone(path))) {
    throw new AppError('engine_failure', `The btrfs image mounted at ${path} does not clone files.`)
  }
  await makeFolders(path)
  const loopImage = (await isLoopMounted(options.dir)) ? imagePath(options.dir) : undefined
  const filesystem = await fileSystemOf(path)
  options.logger.info({ path, filesystem, loopImage }, 'pool.opened')
  return new DirectoryPool(path, filesystem, loopImage, options.dir)
}

/**
 * Unmounts the pool's image and detaches its loop device; does nothing when the pool is on the disk itself.
 * @throws AppError `conflict` naming the processes that keep it busy.
 */
export async function closePool(dir: string): Promise<void> {
  await closeLoopImage(dir)
}

/** Of one that was killed while it tried: files below the mount point would be in the way of the mount. */
async function removeProbes(path: string): Promise<void> {
  const left = (await readdir(path)).filter((name) => name.startsWith(PROBE))
  await Promise.all(left.map((name) => rm(join(path, name), { force: true })))
}

/** Whether files of `directory` can be reflinked, by doing it. */
export async function canClone(directory: string): Promise<boolean> {
  const from = join(directory, `${PROBE}${process.pid}-${performance.now()}`)
  const to = `${from}.copy`
  try {
    await writeFile(from, Buffer.alloc(4096, 1), { flag: 'wx', mode: 0o600 })
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'ENOSYS', 'EXDEV', 'ENOTTY')) return false
    throw error
  } finally {
    await rm(from, { force: true })
    await rm(to, { force: true })
  }
}

/** The name of the file system below `path`, for people. */
export async function fileSystemOf(path: string): Promise<string> {
  const { type } = await statfs(path)
  return fileSystemNames.get(type) ?? `type 0x${type.toString(16)}`
}

async function isLoopMounted(dir: string): Promise<boolean> {
  const mount = await mountAt(join(dir, 'pool'))
  const devices = await devicesOf(imagePath(dir))
  return mount !== undefined && devices.some(({ name }) => name === mount.source)
}

async function makeFolders(path: string): Promise<void> {
  for (const folder of ['', ...FOLDERS]) {
    await mkdir(join(path, folder), { recursive: true })
    await chmod(join(path, folder), FOLDER_MODE)
  }
}

class DirectoryPool implements Pool {
  constructor(
    readonly path: string,
    readonly filesystem: string,
    readonly loopImage: string | undefined,
    private readonly dir: string,
  ) {}

  async clone(from: string, to: string, options: CloneOptions = {}): Promise<void> {
    try {
      await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
      if (options.mode !== undefined) await chmod(to, options.mode)
      // After chmod: the new owner must not find it writable before it has its final mode.
      if (options.uid !== undefined || options.gid !== undefined) await chown(to, options.uid ?? 0, options.gid ?? 0)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) await rm(to, { force: true })
      if (isErrno(error, 'ENOSPC')) throw await this.#full(0, error)
      throw new AppError('engine_failure', `Cloning ${from} to ${to} failed: ${errorText(error)}`, { cause: error })
    }
  }

  async usage(): Promise<PoolUsage> {
    const inner = await spaceOf(this.path)
    const outer = this.loopImage === undefined ? inner : await spaceOf(this.dir)
    const freeBytes = Math.min(inner.freeBytes, outer.freeBytes)
    return { totalBytes: inner.totalBytes, usedBytes: inner.usedBytes, freeBytes }
  }

  async ensureSpace(bytes: number): Promise<void> {
    const { freeBytes, totalBytes } = await this.usage()
    const reserve = Math.min(RESERVE_BYTES, totalBytes * RESERVE_FRACTION)
    if (freeBytes - reserve < bytes) throw await this.#full(bytes)
  }

  async #full(bytes: number, cause?: unknown): Promise<AppError> {
    const { freeBytes } = await this.usage()
    const where = this.loopImage === undefined ? this.path : `${this.path} (image ${this.loopImage})`
    const message = `The pool ${where} has ${freeBytes} bytes left and ${bytes} more are needed; remove capsules or templates, or give it more disk.`
    return new AppError('disk_full', message, { details: { freeBytes, neededBytes: bytes }, cause })
  }
}

async function spaceOf(path: string): Promise<PoolUsage> {
  const { bsize, blocks, bfree, bavail } = await statfs(path)
  return { totalBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize, freeBytes: bavail * bsize }
}
