import { closeSync, constants, lstatSync, mkdirSync, openSync, readlinkSync, realpathSync, type Stats } from 'node:fs'
import { AppError, isErrno, pathBytes } from '@wrenn/base'
import { onPath } from '../files/file-error.js'
import type { GuestUser } from '../identity/users.js'
import { asUser } from '../system/as-user.js'

/** Only to name a directory by, which needs no right to read it: open(2). Node.js has no name for it. */
const O_PATH = 0o10000000
const SLASH = Buffer.from('/')

/** A directory, open, and an entry of it. Disposing closes it. */
export class Place implements Disposable {
  readonly fd: number
  readonly name: Buffer

  private constructor(fd: number, name: Buffer) {
    this.fd = fd
    this.name = name
  }

  /**
   * Where an archive begins: the parent of what `path` names and its name there. Links on the way are followed, one at the end only
   * when a slash follows it. The user must be allowed to read what is there.
   * @param path absolute and without dots, in the form of `pathText`
   * @throws AppError `file_not_found`, `permission_denied`, `not_a_directory`, `invalid_request` for what has no content
   */
  static ofEntry(path: string, follow: boolean, user: GuestUser): Place {
    const open = (): Place => {
      const whole = follow ? realpathSync(pathBytes(path), { encoding: 'buffer' }) : pathBytes(path)
      const [parent, name] = split(whole)
      const stats = lstatSync(whole)
      if (follow && !stats.isDirectory()) throw new AppError('not_a_directory', `path '${path}' is not a directory`)
      requireReadable(whole, stats, path)
      return new Place(openDirectory(parent), name)
    }
    return onPath(path, () => asUser(user, open))
  }

  /**
   * The directory `path`, made with those above it when it is not there, all the user's own.
   * @throws AppError `not_a_directory`, `permission_denied`, `disk_full`, …
   */
  static ofDirectory(path: string, user: GuestUser): Place {
    const bytes = pathBytes(path)
    const open = (): Place => {
      try {
        mkdirSync(bytes, { recursive: true })
      } catch (error) {
        // `recursive` fails for what exists only when it is not a directory.
        if (isErrno(error, 'EEXIST')) throw new AppError('not_a_directory', `path '${path}' is not a directory`)
        throw error
      }
      return new Place(openDirectory(bytes), Buffer.from('.'))
    }
    return onPath(path, () => asUser(user, open))
  }

  [Symbol.dispose](): void {
    closeSync(this.fd)
  }
}

function split(path: Buffer): readonly [Buffer, Buffer] {
  const at = path.lastIndexOf(SLASH)
  const name = path.subarray(at + 1)
  return [at === 0 ? SLASH : path.subarray(0, at), name.length === 0 ? Buffer.from('.') : name]
}

function openDirectory(path: Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY)
}

/** tar would say so too, but only after the answer has begun. */
function requireReadable(path: Buffer, stats: Stats, shown: string): void {
  if (stats.isSymbolicLink()) readlinkSync(path)
  else if (stats.isFile() || stats.isDirectory())
    closeSync(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW | constants.O_NOCTTY))
  else if (!stats.isFIFO()) throw new AppError('invalid_request', `path '${shown}' is neither file, directory nor link`)
}
