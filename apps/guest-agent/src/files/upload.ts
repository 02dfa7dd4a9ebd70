import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Readable } from 'node:stream'
import { AppError, isErrno } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'
import { type Content, receive } from './descriptor-io.js'
import { linkTarget, realPath } from './entry.js'
import { fileError, onPath } from './file-error.js'
import type { FileVersions } from './file-versions.js'
import { kernelPath } from './kernel-path.js'
import type { Metadata, MetadataStore } from './metadata.js'
import { makeParents } from './operations.js'
import { overwrite } from './overwrite.js'
import { temporaryName } from './temporary-name.js'

const DEFAULT_MODE = 0o644
/** A file without a name, which is gone with its last descriptor (open(2)). */
const O_TMPFILE = 0o20_000_000 | constants.O_DIRECTORY
/** A content of this size or less waits in memory for its place. */
const MAX_MEMORY_BYTES = 256 * 1024

/** Where a received file goes, and with whose rights. */
export interface UploadTarget {
  /** Absolute, as the client named it. */
  readonly path: string
  readonly user: GuestUser
  /** Whose it becomes if the rights are not the owner's own. @default `user` */
  readonly owner?: GuestUser
  /** Permission bits; absent: those of the file it replaces, else 0644. */
  readonly mode: number | undefined
  /**
   * Judges the file that is to be replaced, by an open descriptor, or that there is none. Called early, so that a body which will be
   * refused is not waited for, and in the same step as the replacement. @throws AppError `precondition_failed`
   */
  readonly judge?: Judge | undefined
}

export type Judge = (fd: number | undefined) => void

/** What all uploads of one agent share. */
export interface UploadSite {
  readonly metadata: MetadataStore
  readonly versions: FileVersions
  /** For contents that can wait in no directory of the user's. */
  readonly spoolDir: string
}

/** Where received bytes wait, and how they come to their place. */
interface Way {
  readonly maxMemoryBytes: number
  readonly openFile: () => number
  /** Calls `prepare` with the file that gets the content, open, before anything of the content is seen. */
  readonly place: (content: Content, prepare: Prepare) => Promise<void>
  /** Removes what still waits. Idempotent. */
  readonly discard: () => void
}

type Prepare = (fd: number) => Promise<void>

/**
 * One file being received. No byte of it is seen before the last one has come, and a broken upload leaves nothing.
 *
 * What happens then depends on what is there. Nothing: the file appears whole, in one step. A file: its content is replaced in
 * place, so that owner, mode, attributes and hard links stay. A running program, whose content the kernel protects: a new file
 * with the old one's owner, mode and attributes takes its name.
 */
export class Upload {
  readonly #target: UploadTarget
  readonly #site: UploadSite
  readonly #way: Way
  #fd: number | undefined
  #inMemory: Buffer | undefined

  private constructor(target: UploadTarget, site: UploadSite, way: Way) {
    this.#target = target
    this.#site = site
    this.#way = way
  }

  /** @throws AppError `is_a_directory`, `permission_denied`, `disk_full`, … */
  static open(target: UploadTarget, site: UploadSite): Upload {
    makeParents(target.path, target.user, target.owner)
    return onPath(target.path, () => new Upload(target, site, wayTo(target, site)))
  }

  async receive(source: Readable): Promise<void> {
    const { maxMemoryBytes, openFile } = this.#way
    try {
      this.#inMemory = await receive(source, {
        maxMemoryBytes,
        openFile: () => {
          this.#fd = openFile()
          return this.#fd
        },
      })
    } catch (error) {
      throw fileError(error, this.#target.path)
    }
  }

  /** Puts the file in its place, with its metadata. */
  async commit(metadata: Metadata): Promise<void> {
    try {
      await this.#way.place(this.#content(), (fd) => this.#site.metadata.replace(fd, metadata))
    } catch (error) {
      throw fileError(error, this.#target.path)
    } finally {
      this.discard()
    }
  }

  /** Leaves nothing of an upload that failed. Idempotent. */
  discard(): void {
    this.#way.discard()
  }

  #content(): Content {
    if (this.#inMemory !== undefined) return this.#inMemory
    if (this.#fd === undefined) return Buffer.alloc(0)
    return { fd: this.#fd, sizeBytes: fstatSync(this.#fd).size }
  }
}

function wayTo(target: UploadTarget, site: UploadSite): Way {
  const { path, user, judge } = target
  const existing = asUser(user, () => statSync(kernelPath(path), { throwIfNoEntry: false }))
  if (existing === undefined) {
    judge?.(undefined)
    return wayToNewFile(target, site)
  }
  if (existing.isDirectory()) throw new AppError('is_a_directory', `path is a directory: ${path}`)
  if (!existing.isFile()) throw new AppError('invalid_request', `path '${path}' is not a regular file`)
  try {
    withFile(openForWriting(path, user), (fd) => judge?.(fd))
  } catch (error) {
    // The links to a running program would part, which nobody asked for.
    if (!isErrno(error, 'ETXTBSY') || existing.nlink > 1) throw error
    return wayToNewProgram(target, existing, site)
  }
  return wayToContent(target, site)
}

function wayToNewFile(target: UploadTarget, { versions }: UploadSite): Way {
  const { user, mode = DEFAULT_MODE } = target
  const path = asUser(user, () => behindLinks(target.path))
  const temporary = createBeside(path, target, mode)
  return {
    ...temporary,
    place: async (content, prepare) => {
      await prepare(temporary.fd)
      if (appear(temporary.path, path, target)) return
      // Somebody else has made the file meanwhile: it is theirs, and gets the content.
      await replaceContent(target, content, versions, prepare)
    },
  }
}

function wayToContent(target: UploadTarget, { versions, spoolDir }: UploadSite): Way {
  let spool: number | undefined
  return {
    maxMemoryBytes: MAX_MEMORY_BYTES,
    openFile: () => {
      spool = openSpool(target, spoolDir)
      return spool
    },
    place: (content, prepare) => replaceContent(target, content, versions, prepare),
    discard: () => {
      if (spool !== undefined) closeSync(spool)
      spool = undefined
    },
  }
}

function wayToNewProgram(target: UploadTarget, existing: Stats, { metadata }: UploadSite): Way {
  const { user, owner = user } = target
  const path = asUser(user, () => realPath(kernelPath(target.path)))
  const temporary = createBeside(path, target, 0o600)
  return {
    ...temporary,
    place: async (_content, prepare) => {
      const { fd } = temporary
      if (user.uid === owner.uid) fchownSync(fd, existing.uid, existing.gid)
      const keptBits = user.uid === 0 ? 0o7777 : 0o1777
      fchmodSync(fd, target.mode ?? existing.mode & keptBits)
      await copyAttributes(path, fd, metadata)
      await prepare(fd)
      if (target.judge !== undefined) withFile(openSync(kernelPath(path), constants.O_RDONLY), target.judge)
      asUser(user, () => renameSync(kernelPath(temporary.path), kernelPath(path)))
    },
  }
}

function withFile(fd: number, work: (fd: number) => void): void {
  try {
    work(fd)
  } finally {
    closeSync(fd)
  }
}

async function copyAttributes(path: string, to: number, metadata: MetadataStore): Promise<void> {
  const from = openSync(kernelPath(path), constants.O_RDONLY)
  try {
    await metadata.copyAttributes(from, to)
  } finally {
    closeSync(from)
  }
}

interface Temporary extends Omit<Way, 'place'> {
  readonly path: string
  readonly fd: number
}

/** A new file of the user's in the directory of `path`, for it to get that name. */
function createBeside(path: string, { user, owner = user }: UploadTarget, mode: number): Temporary {
  const temporary = join(dirname(path), temporaryName())
  const place = kernelPath(temporary)
  const fd = asUser(user, () => {
    const opened = openSync(place, 'wx+', 0o600)
    chmodSync(place, mode)
    return opened
  })
  give(fd, user, owner)
  let isOpen = true
  const discard = (): void => {
    if (isOpen) closeSync(fd)
    isOpen = false
    rmSync(place, { force: true })
  }
  return { path: temporary, fd, maxMemoryBytes: 0, openFile: () => fd, discard }
}

function give(fd: number, maker: GuestUser, { uid, gid }: GuestUser): void {
  if (maker.uid !== uid) fchownSync(fd, uid, gid)
}

/** Gives a temporary file its name unless something has that name by now. */
function appear(temporary: string, path: string, { user, judge }: UploadTarget): boolean {
  const [from, to] = [kernelPath(temporary), kernelPath(path)]
  return asUser(user, () => {
    if (judge !== undefined) {
      // What is there by now is judged where it is replaced.
      if (lstatSync(to, { throwIfNoEntry: false })) return false
      judge(undefined)
    }
    try {
      linkSync(from, to)
      return true
    } catch (error) {
      if (isErrno(error, 'EEXIST')) return false
      // A file system without hard links, or, as tmpfs counts them, without room for one.
      if (!isErrno(error, 'EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'EMLINK', 'ENOSPC')) throw error
      renameSync(from, to)
      return true
    }
  })
}

async function replaceContent(
  { path, user, owner = user, mode, judge }: UploadTarget,
  content: Content,
  versions: FileVersions,
  prepare: Prepare,
): Promise<void> {
  const { fd, isNew } = openOrMake(path, user, judge)
  try {
    const stats = fstatSync(fd)
    if (!stats.isFile()) throw new AppError('invalid_request', `path '${path}' is not a regular file`)
    if (mode !== undefined) requireOwner(stats, user, path)
    const replace = async (): Promise<void> => {
      await overwrite(fd, content, user, () => prepare(fd))
      give(fd, user, owner)
      // Last, because the content takes set-uid and set-gid away, and a file that could not be written keeps its mode.
      if (mode !== undefined) asUser(user, () => fchmodSync(fd, mode))
    }
    await versions.replace(fd, replace, () => (isNew ? undefined : judge?.(fd)))
  } finally {
    closeSync(fd)
  }
}

/** Only the owner sets a mode: chmod(2). Known before anything is written. */
function requireOwner({ uid }: Stats, user: GuestUser, path: string): void {
  if (user.uid === 0 || user.uid === uid) return
  throw new AppError('permission_denied', `path '${path}' belongs to somebody else, who alone may change its mode`)
}

/** Non-blocking, so that a FIFO that has come to lie there does not hang the agent. */
function openForWriting(path: string, user: GuestUser, more = 0): number {
  const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY | more
  return asUser(user, () => openSync(kernelPath(path), flags, DEFAULT_MODE))
}

/** The file may have been removed since the upload began. */
function openOrMake(
  path: string,
  user: GuestUser,
  judge: Judge | undefined,
): { readonly fd: number; readonly isNew: boolean } {
  try {
    return { fd: openForWriting(path, user), isNew: false }
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    judge?.(undefined)
    return { fd: openForWriting(path, user, constants.O_CREAT), isNew: true }
  }
}

/** In the directory of the file, where the user may make one and the file system can, so that its own space is what counts. */
function openSpool({ path, user }: UploadTarget, spoolDir: string): number {
  const flags = constants.O_RDWR | O_TMPFILE
  try {
    return asUser(user, () => openSync(kernelPath(dirname(realPath(kernelPath(path)))), flags, 0o600))
  } catch (error) {
    if (isErrno(error, 'ENOSPC', 'EDQUOT')) throw error
    mkdirSync(spoolDir, { recursive: true })
    return openSync(spoolDir, flags, 0o600)
  }
}

/** Where a path leads whose last part may be a link to what does not exist yet. */
function behindLinks(path: string): string {
  const place = kernelPath(path)
  const link = lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() ? linkTarget(place) : undefined
  return link === undefined ? path : behindLinks(resolve(realPath(kernelPath(dirname(path))), link))
}
