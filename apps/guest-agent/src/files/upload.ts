import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
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
import { copyToFile } from './descriptor-io.js'
import { linkTarget, realPath } from './entry.js'
import { fileError, onPath } from './file-error.js'
import { kernelPath } from './kernel-path.js'
import type { Metadata, MetadataStore } from './metadata.js'
import { makeParents } from './operations.js'
import { temporaryName } from './temporary-name.js'

const DEFAULT_MODE = 0o644

export interface UploadTarget {
  /** Absolute, as the client named it. */
  readonly path: string
  readonly user: GuestUser
  /** Permission bits; absent: those of the file it replaces, else 0644. */
  readonly mode: number | undefined
}

/**
 * One file being received. The bytes go to a temporary file in the target's directory and take its place in one step at the
 * end, so readers see the old file or the new one and a broken upload leaves nothing.
 */
export class Upload {
  readonly #target: UploadTarget
  /** Where the bytes end up: behind a symbolic link, its target. */
  readonly #path: string
  readonly #temporary: string
  readonly #fd: number
  #isOpen = true

  private constructor(target: UploadTarget, path: string, temporary: string, fd: number) {
    this.#target = target
    this.#path = path
    this.#temporary = temporary
    this.#fd = fd
  }

  /** @throws AppError `is_a_directory`, `permission_denied`, `disk_full`, … */
  static open(target: UploadTarget): Upload {
    makeParents(target.path, target.user)
    return onPath(target.path, () => asUser(target.user, () => Upload.#open(target)))
  }

  static #open(target: UploadTarget): Upload {
    const existing = statSync(kernelPath(target.path), { throwIfNoEntry: false })
    if (existing?.isDirectory()) throw new AppError('is_a_directory', `path is a directory: ${target.path}`)
    if (existing !== undefined && !existing.isFile()) {
      throw new AppError('invalid_request', `path '${target.path}' is not a regular file`)
    }
    const path = existing === undefined ? behindLinks(target.path) : realPath(kernelPath(target.path))
    const temporary = join(dirname(path), temporaryName())
    const upload = Upload.#create(target, path, temporary, existing)
    chmodSync(kernelPath(upload.#temporary), target.mode ?? (existing?.mode ?? DEFAULT_MODE) & 0o777)
    return upload
  }

  /** A file the user may write in a directory the user may not is written in place. */
  static #create(target: UploadTarget, path: string, temporary: string, existing: Stats | undefined): Upload {
    try {
      return new Upload(target, path, temporary, openSync(kernelPath(temporary), 'wx', 0o600))
    } catch (error) {
      if (existing === undefined || !isErrno(error, 'EACCES', 'EPERM', 'EROFS')) throw error
      return new Upload(target, path, path, openSync(kernelPath(path), constants.O_WRONLY | constants.O_TRUNC))
    }
  }

  async receive(source: Readable): Promise<void> {
    try {
      await copyToFile(source, this.#fd)
    } catch (error) {
      throw fileError(error, this.#target.path)
    }
  }

  /** Puts the file in its place, with its metadata. */
  async commit(metadata: Metadata, store: MetadataStore): Promise<void> {
    const { ino } = fstatSync(this.#fd)
    this.#close()
    try {
      await store.replace(this.#temporary, ino, metadata)
      if (this.#temporary !== this.#path) {
        asUser(this.#target.user, () => renameSync(kernelPath(this.#temporary), kernelPath(this.#path)))
      }
    } catch (error) {
      this.discard()
      throw fileError(error, this.#target.path)
    }
  }

  /** Leaves nothing of an upload that failed. */
  discard(): void {
    this.#close()
    if (this.#temporary !== this.#path) rmSync(kernelPath(this.#temporary), { force: true })
  }

  #close(): void {
    if (this.#isOpen) closeSync(this.#fd)
    this.#isOpen = false
  }
}

/** Where a path leads whose last part may be a link to what does not exist yet. */
function behindLinks(path: string): string {
  const place = kernelPath(path)
  const link = lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() ? linkTarget(place) : undefined
  return link === undefined ? path : behindLinks(resolve(realPath(kernelPath(dirname(path))), link))
}
