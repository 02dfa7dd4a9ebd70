import { type FSWatcher, lstatSync, type Stats, statfsSync, statSync, watch } from 'node:fs'
import { relative } from 'node:path'
import { AppError, isErrno, pathText } from '@wrenn/base'
import { EventType } from '@wrenn/protocol/guest'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { onPath } from './file-error.js'
import { kernelPath } from './kernel-path.js'
import { namesIn } from './listing.js'
import { isTemporaryName } from './temporary-name.js'

/** File system types served over a network or by another process, where inotify does not see all changes (statfs(2)). */
const networkTypes: ReadonlySet<number> = new Set([
  0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x65735546, 0x01021997, 0x00c36400, 0x5346414f,
])

/** While one looks, anything may happen to a path; what cannot be reached under its name is not there for its watcher. */
const UNREACHABLE = ['ENOENT', 'ENOTDIR', 'EACCES', 'ELOOP', 'ENAMETOOLONG', 'EIO'] as const

/** What is watched and with whose rights. */
export interface WatchOptions {
  /** Also directories below, those that are made later included. */
  readonly recursive: boolean
  /** Network file systems do not tell of what other machines change: without this they are refused. */
  readonly allowNetworkMounts: boolean
  readonly user: GuestUser
}

/** One change below the watched directory. Names are texts as `pathText` makes them. */
export interface WatchEvent {
  /** Relative to the watched directory. */
  readonly name: string
  readonly type: EventType
  /** The same place as an absolute path. */
  readonly path: string
}

interface Known {
  /** What stays the same when the file is renamed. File systems give a removed file's inode to the next one made. */
  readonly identity: string
  readonly isDirectory: boolean
  mtimeMs: number
  ctimeMs: number
  size: number
  rights: string
  /** It already had content when it was first seen, so a write is reported with its creation. */
  readonly isFresh: boolean
}

/**
 * Watches a directory with one inotify watch per directory. The kernel's events only say where to look: what happened follows
 * from comparing with what was known, so nothing created inside a new directory before its watch existed is missed.
 */
export class DirectoryWatcher {
  readonly #root: string
  readonly #options: WatchOptions
  readonly #onEvent: (event: WatchEvent) => void
  readonly #watches = new Map<string, FSWatcher>()
  readonly #known = new Map<string, Known>()
  /** Paths that vanished and may turn up again under another name, by inode. */
  readonly #gone = new Map<string, string>()
  #flush: NodeJS.Immediate | undefined
  #isClosed = false

  /** @throws AppError `file_not_found`, `not_a_directory`, `permission_denied`, `invalid_state` for a network mount */
  constructor(root: string, options: WatchOptions, onEvent: (event: WatchEvent) => void) {
    this.#root = root
    this.#options = options
    this.#onEvent = onEvent
    onPath(root, () => asUser(options.user, () => this.#checkRoot()))
    try {
      this.#addDirectory(root, false)
    } catch (error) {
      this.close()
      throw error
    }
  }

  close(): void {
    this.#isClosed = true
    if (this.#flush !== undefined) clearImmediate(this.#flush)
    for (const each of this.#watches.values()) each.close()
    this.#watches.clear()
    this.#known.clear()
  }

  #checkRoot(): void {
    if (!statSync(kernelPath(this.#root)).isDirectory()) {
      throw new AppError('not_a_directory', `path ${this.#root} not a directory`)
    }
    if (!this.#options.allowNetworkMounts && networkTypes.has(statfsSync(kernelPath(this.#root)).type)) {
      throw new AppError(
        'invalid_state',
        `cannot watch ${this.#root}: it is on a network mount (allowNetworkMounts permits it)`,
      )
    }
  }

  /** Watches first and lists then, so that nothing falls between. */
  #addDirectory(directory: string, announce: boolean): void {
    const isRoot = directory === this.#root
    if (!this.#watches.has(directory) && !this.#watch(directory, isRoot)) return
    for (const name of this.#namesIn(directory)) {
      const path = `${directory === '/' ? '' : directory}/${name}`
      const stats = statsOf(path)
      if (stats !== undefined && !this.#known.has(path)) this.#appear(path, stats, announce)
    }
  }

  #watch(directory: string, isRoot: boolean): boolean {
    try {
      const watcher = asUser(this.#options.user, () =>
        watch(kernelPath(directory), { persistent: false, encoding: 'buffer' }),
      )
      watcher.on('change', (kind, raw) => {
        const name = Buffer.isBuffer(raw) ? pathText(raw) : raw
        if (name !== null && !isTemporaryName(name))
          this.#look(`${directory === '/' ? '' : directory}/${name}`, String(kind))
      })
      watcher.on('error', () => this.#forget(directory))
      this.#watches.set(directory, watcher)
      return true
    } catch (error) {
      if (isErrno(error, 'ENOSPC', 'EMFILE')) {
        throw new AppError('limit_exceeded', 'The kernel allows no more watches; watch fewer directories.', {
          cause: error,
        })
      }
      if (isRoot)
        return onPath(directory, () => {
          throw error
        })
      if (isErrno(error, ...UNREACHABLE)) return false
      throw error
    }
  }

  #namesIn(directory: string): readonly string[] {
    try {
      return namesIn(directory).filter((name) => !isTemporaryName(name))
    } catch (error) {
      if (isErrno(error, ...UNREACHABLE)) return []
      throw error
    }
  }

  #look(path: string, kind: string): void {
    if (this.#isClosed) return
    const stats = statsOf(path)
    const known = this.#known.get(path)
    if (stats === undefined) {
      if (known !== undefined) this.#vanish(path, known)
    } else if (
      known === undefined ||
      known.identity !== identityOf(stats) ||
      known.isDirectory !== stats.isDirectory()
    ) {
      if (known?.isDirectory) this.#forget(path)
      this.#appear(path, stats, true)
    } else if (kind === 'change' || !known.isDirectory) {
      this.#compare(path, known, stats)
    }
  }

  #appear(path: string, stats: Stats, announce: boolean): void {
    const isDirectory = stats.isDirectory()
    const { mtimeMs, ctimeMs, size } = stats
    const identity = identityOf(stats)
    const movedFrom = this.#takeGone(identity)
    this.#known.set(path, {
      identity,
      isDirectory,
      mtimeMs,
      ctimeMs,
      size,
      rights: rightsOf(stats),
      isFresh: announce && movedFrom === undefined && stats.isFile() && size > 0,
    })
    if (movedFrom !== undefined) this.#emit(movedFrom, EventType.RENAME)
    if (announce) this.#emit(path, EventType.CREATE)
    if (announce && this.#known.get(path)?.isFresh) this.#emit(path, EventType.WRITE)
    if (isDirectory && this.#options.recursive) this.#descend(path, announce && movedFrom === undefined)
  }

  #descend(directory: string, announce: boolean): void {
    try {
      this.#addDirectory(directory, announce)
    } catch (error) {
      // While watching, a directory that cannot be watched too (watch limit) must not end the watching of the others.
      if (!announce || !AppError.is(error, 'limit_exceeded')) throw error
    }
  }

  #compare(path: string, known: Known, stats: Stats): void {
    const isWritten = !known.isDirectory && (known.mtimeMs !== stats.mtimeMs || known.size !== stats.size)
    // A directory's ctime also changes with its content, which its own watch reports.
    const rights = rightsOf(stats)
    const isChanged = known.isDirectory ? known.rights !== rights : known.ctimeMs !== stats.ctimeMs
    known.rights = rights
    known.mtimeMs = stats.mtimeMs
    known.ctimeMs = stats.ctimeMs
    known.size = stats.size
    if (isWritten) this.#emit(path, EventType.WRITE)
    else if (isChanged) this.#emit(path, EventType.CHMOD)
  }

  #vanish(path: string, known: Known): void {
    this.#known.delete(path)
    if (known.isDirectory) this.#forget(path)
    this.#gone.set(known.identity, path)
    // The other half of a rename is in the same batch of kernel events.
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined
      for (const each of this.#gone.values()) this.#emit(each, EventType.REMOVE)
      this.#gone.clear()
    })
  }

  #takeGone(identity: string): string | undefined {
    const path = this.#gone.get(identity)
    this.#gone.delete(identity)
    return path
  }

  /** Drops all that was known at and below a directory. */
  #forget(directory: string): void {
    const prefix = `${directory}/`
    for (const path of this.#known.keys()) if (path.startsWith(prefix)) this.#known.delete(path)
    for (const [path, watcher] of this.#watches) {
      if (path !== directory && !path.startsWith(prefix)) continue
      watcher.close()
      this.#watches.delete(path)
    }
  }

  #emit(path: string, type: EventType): void {
    if (!this.#isClosed) this.#onEvent({ name: relative(this.#root, path), type, path })
  }
}

function statsOf(path: string): Stats | undefined {
  try {
    return lstatSync(kernelPath(path), { throwIfNoEntry: false })
  } catch (error) {
    if (isErrno(error, ...UNREACHABLE)) return undefined
    throw error
  }
}

function identityOf({ dev, ino, birthtimeMs }: Stats): string {
  return `${dev}:${ino}:${birthtimeMs}`
}

function rightsOf(stats: Stats): string {
  return `${stats.mode}:${stats.uid}:${stats.gid}`
}
