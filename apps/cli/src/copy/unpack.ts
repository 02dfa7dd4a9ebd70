import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { AppError, isErrno, pathText } from '@wrenn/base'
import { Folder } from './folder.js'
import { type CopyReport, Problems } from './report.js'
import { damaged } from './tar-format.js'
import { readTar, type TarEntry } from './tar-reader.js'

/** Deeper than any tree that people have; each level is an open directory. */
const MAX_DEPTH = 2_000
const OWNER_MAY_ALL = 0o700

/** Where an archive goes, and under which name. */
export interface UnpackTarget {
  /** An existing directory, which may be reached through links. */
  readonly folder: string
  /** What the archive's first entry is to be called in it; absent: what is in that entry goes into the directory itself. */
  readonly name?: Buffer
  /** Whether `name` may be a link to a directory there: only when the user wrote it. */
  readonly followName: boolean
}

/**
 * Unpacks a tar that cannot be trusted. Whatever it says, nothing lands outside the target: each directory on the way is opened as
 * one, never through a link that lies in the target; there are no devices, no set-user-id bits and no foreign owners. A file has its
 * name only when it is whole.
 * @param report what of it cannot be kept is told; `onFile` gets paths below `shown`
 * @throws AppError `invalid_request` for a damaged archive, `copy_incomplete`, `disk_full`, and what `source` throws
 */
export async function unpackTar(
  source: AsyncIterable<Uint8Array>,
  target: UnpackTarget,
  shown: string,
  report: CopyReport,
): Promise<void> {
  using unpacking = new Unpacking(target, shown, report)
  for await (const entry of readTar(source)) await unpacking.add(entry)
  unpacking.finish()
}

interface Level {
  readonly name: Buffer
  readonly folder: Folder
  /** What the directory gets once all is in it. */
  meta: Pick<TarEntry, 'mode' | 'mtimeSec'> | undefined
}

class Unpacking implements Disposable {
  readonly #target: UnpackTarget
  readonly #shown: string
  readonly #report: CopyReport
  readonly #problems: Problems
  readonly #root: Folder
  /** The directories that are open, each in the one before it. */
  readonly #levels: Level[] = []
  /** How many parts at the beginning of each path stand for the target's name. */
  #topParts: number | undefined
  #sequence = 0

  constructor(target: UnpackTarget, shown: string, report: CopyReport) {
    this.#target = target
    this.#shown = shown
    this.#report = report
    this.#problems = new Problems(report)
    this.#root = Folder.open(Buffer.from(target.folder), true)
  }

  async add(entry: TarEntry): Promise<void> {
    const shown = this.#show(entry.path)
    try {
      const parts = this.#place(entry.path)
      if (parts === undefined) return
      await this.#put(entry, parts, shown)
    } catch (error) {
      this.#problems.add(shown, error)
    }
  }

  finish(): void {
    this.#leave(0)
    this.#problems.finish()
  }

  [Symbol.dispose](): void {
    for (const { folder } of this.#levels) folder[Symbol.dispose]()
    this.#root[Symbol.dispose]()
  }

  /** The names that lead to an entry from the root; `undefined` for a directory that is the target's own. */
  #place(path: Buffer): readonly Buffer[] | undefined {
    const parts = partsOf(path)
    this.#topParts ??= Math.min(1, parts.length)
    const below = parts.slice(this.#topParts)
    if (this.#target.name !== undefined) return [this.#target.name, ...below]
    return below.length === 0 ? undefined : below
  }

  #show(path: Buffer): string {
    const below = path
      .toString('latin1')
      .split('/')
      .filter((part) => part !== '' && part !== '.')
    const rest = below.slice(this.#topParts ?? 1).join('/')
    return pathText(Buffer.concat([Buffer.from(this.#shown), Buffer.from(rest === '' ? '' : `/${rest}`, 'latin1')]))
  }

  async #put(entry: TarEntry, parts: readonly Buffer[], shown: string): Promise<void> {
    const name = parts.at(-1) ?? Buffer.alloc(0)
    const parent = this.#enter(parts.slice(0, -1))
    const path = parent.entry(name)
    switch (entry.type) {
      case 'directory':
        this.#makeDirectory(parts, path, entry)
        break
      case 'file':
        await this.#writeFile(parent, path, entry, shown)
        this.#report.onFile(shown, entry.size)
        break
      case 'symlink':
        replace(path, () => symlinkSync(entry.link, path))
        lutimesSync(path, entry.mtimeSec, entry.mtimeSec)
        break
      case 'hard link':
        this.#link(entry.link, path)
        break
      default:
        this.#report.onNote(
          `${shown}: left out, it is ${entry.type === 'fifo' ? 'a FIFO' : 'neither file, folder nor link'}`,
        )
    }
  }

  #makeDirectory(parts: readonly Buffer[], path: Buffer, entry: TarEntry): void {
    try {
      mkdirSync(path, OWNER_MAY_ALL)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
    }
    this.#enter(parts)
    const level = this.#levels[parts.length - 1]
    if (level === undefined) return
    level.meta = entry
    const { mode } = lstatSync(Buffer.concat([level.folder.self, Buffer.from('/.')]))
    if ((mode & OWNER_MAY_ALL) !== OWNER_MAY_ALL) chmodSync(level.folder.self, (mode & 0o7777) | OWNER_MAY_ALL)
  }

  /** Opens the directories that lead to `parts`, makes those that are not there, and is done with the others that were open. */
  #enter(parts: readonly Buffer[]): Folder {
    if (parts.length > MAX_DEPTH) throw new AppError('invalid_request', `it lies deeper than ${MAX_DEPTH} directories`)
    let same = 0
    while (same < parts.length && this.#levels[same]?.name.equals(parts[same] ?? Buffer.alloc(0))) same++
    this.#leave(same)
    for (const name of parts.slice(same)) {
      const folder = this.#open(this.#levels.at(-1)?.folder ?? this.#root, name, this.#levels.length)
      this.#levels.push({ name, folder, meta: undefined })
    }
    return this.#levels.at(-1)?.folder ?? this.#root
  }

  #open(parent: Folder, name: Buffer, depth: number): Folder {
    const path = parent.entry(name)
    const follow = depth === 0 && this.#target.name !== undefined && this.#target.followName
    try {
      return Folder.open(path, follow)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
      mkdirSync(path)
      return Folder.open(path, false)
    }
  }

  /** Done with all open directories but the first `kept`: each gets its mode and time. */
  #leave(kept: number): void {
    for (const level of this.#levels.splice(kept).reverse()) {
      using folder = level.folder
      const { meta } = level
      if (meta === undefined) continue
      try {
        utimesSync(folder.self, meta.mtimeSec, meta.mtimeSec)
        chmodSync(folder.self, meta.mode & 0o3777)
      } catch (error) {
        this.#problems.add(pathText(level.name), error)
      }
    }
  }

  async #writeFile(parent: Folder, path: Buffer, entry: TarEntry, shown: string): Promise<void> {
    const part = parent.entry(Buffer.from(`.wrenn-part-${process.pid}-${this.#sequence++}`))
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    const fd = openSync(part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    try {
      try {
        await writeData(fd, entry)
        fchmodSync(fd, entry.mode & 0o777)
        futimesSync(fd, entry.mtimeSec, entry.mtimeSec)
      } finally {
        closeSync(fd)
      }
      renameSync(part, path)
    } catch (error) {
      rmSync(part, { force: true })
      throw error
    }
    if ((entry.mode & 0o6000) !== 0) this.#report.onNote(`${shown}: set-user-id and set-group-id are left out`)
  }

  /** Only to a file of the same copy, on a way without links. */
  #link(to: Buffer, path: Buffer): void {
    const parts = partsOf(to).slice(this.#topParts ?? 1)
    const names = this.#target.name === undefined ? parts : [this.#target.name, ...parts]
    const folders: Folder[] = []
    try {
      let folder = this.#root
      for (const [depth, name] of names.slice(0, -1).entries()) {
        folder = this.#open(folder, name, depth)
        folders.push(folder)
      }
      const source = folder.entry(names.at(-1) ?? Buffer.alloc(0))
      if (lstatSync(source).isDirectory()) throw new AppError('invalid_request', 'it is a hard link to a directory')
      replace(path, () => linkSync(source, path))
    } finally {
      for (const folder of folders) folder[Symbol.dispose]()
    }
  }
}

/** @throws AppError `invalid_request` for a path that leads out of where it is */
function partsOf(path: Buffer): readonly Buffer[] {
  if (path.includes(0)) throw damaged()
  const parts = path.toString('latin1').split('/')
  const isOutside = path[0] === 0x2f || parts.includes('..')
  if (isOutside) throw new AppError('invalid_request', 'the capsule gave it a place outside the copy')
  return parts.filter((part) => part !== '' && part !== '.').map((part) => Buffer.from(part, 'latin1'))
}

/** A link takes the place of what is there, unless that is a directory. */
function replace(path: Buffer, make: () => void): void {
  try {
    make()
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
    unlinkSync(path)
    make()
  }
}

async function writeData(fd: number, entry: TarEntry): Promise<void> {
  const extents = entry.extents[Symbol.iterator]()
  let [at, left] = [0, 0]
  for await (let piece of entry.data()) {
    while (piece.length > 0) {
      while (left === 0) {
        const next = extents.next()
        if (next.done) throw damaged()
        at = next.value.offset
        left = next.value.length
      }
      const written = writeSync(fd, piece, 0, Math.min(left, piece.length), at)
      at += written
      left -= written
      piece = piece.subarray(written)
    }
  }
  if (entry.extents.length !== 1 || entry.extents[0]?.offset !== 0 || entry.extents[0].length !== entry.size)
    ftruncateSync(fd, entry.size)
}
