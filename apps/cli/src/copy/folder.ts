import { closeSync, constants, existsSync, lstatSync, openSync, statSync } from 'node:fs'

/** Only to name a directory by, which needs no right to read it: open(2). Node.js has no name for it. */
const O_PATH = 0o10000000
const SLASH = Buffer.from('/')

/**
 * A directory that stays the one it was when it was opened. On Linux what is in it is reached through its descriptor, so that no
 * link can lead elsewhere and no path is too long; other systems get the plain path.
 */
export class Folder implements Disposable {
  /** Leads to the directory itself. */
  readonly self: Buffer
  readonly #fd: number | undefined

  private constructor(path: Buffer, fd: number | undefined) {
    this.self = path
    this.#fd = fd
  }

  /** @param follow whether `path` may be a link @throws the system's `ENOTDIR`, `ENOENT`, … */
  static open(path: Buffer, follow: boolean): Folder {
    if (process.platform !== 'linux' || !existsSync('/proc/self/fd')) {
      const stats = follow ? statSync(path) : lstatSync(path)
      if (stats.isDirectory()) return new Folder(path, undefined)
      throw Object.assign(new Error(`ENOTDIR: not a directory, open '${path}'`), { code: 'ENOTDIR' })
    }
    const fd = openSync(path, O_PATH | constants.O_DIRECTORY | (follow ? 0 : constants.O_NOFOLLOW))
    return new Folder(Buffer.from(`/proc/self/fd/${fd}`), fd)
  }

  /** The path by which the system finds an entry of the directory. */
  entry(name: Buffer): Buffer {
    return Buffer.concat([this.self, SLASH, name])
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
  }
}
