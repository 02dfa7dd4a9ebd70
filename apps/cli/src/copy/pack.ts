import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { pathText } from '@wrenn/base'
import { Folder } from './folder.js'
import { type CopyReport, Problems } from './report.js'
import { BLOCK_BYTES, type EntryHead, headOf, padded, paddingOf } from './tar-format.js'
import type { Extent } from './tar-reader.js'

const READ_BYTES = 256 * 1024
/** Small entries travel together. */
const BATCH_BYTES = 256 * 1024
/** Holes are found in steps of this; smaller ones are sent as zeros. */
const HOLE_BYTES = 4096

interface PackSource {
  /** The entry's directory, which may be reached through links. */
  readonly folder: Buffer
  readonly name: Buffer
  /** What it is to be called in the archive; absent: the archive has what is in it, and not itself. */
  readonly as?: Buffer
}

/**
 * The tar of a file, link or directory, as it is read. Modes, times, hard and symbolic links and names of any bytes are kept; owners
 * are not, and so neither are set-user-id bits.
 * @param shown what the archive's entries are called in `report`
 * @throws AppError `copy_incomplete` after the last entry, `invalid_request`, …
 */
export function* packTar(source: PackSource, shown: string, report: CopyReport): Generator<Buffer, void> {
  const packing = new Packing(shown, report)
  let batch: Buffer[] = []
  let bytes = 0
  for (const piece of packing.run(source)) {
    batch.push(piece)
    bytes += piece.length
    if (bytes < BATCH_BYTES) continue
    yield Buffer.concat(batch)
    batch = []
    bytes = 0
  }
  yield Buffer.concat([...batch, Buffer.alloc(2 * BLOCK_BYTES)])
  packing.problems.finish()
}

class Packing {
  readonly problems: Problems
  readonly #shown: string
  readonly #report: CopyReport
  /** Where a file with several names was packed first. */
  readonly #linked = new Map<string, Buffer>()

  constructor(shown: string, report: CopyReport) {
    this.#shown = shown
    this.#report = report
    this.problems = new Problems(report)
  }

  *run({ folder, name, as }: PackSource): Generator<Buffer, void> {
    using parent = Folder.open(folder, true)
    if (as !== undefined) yield* this.#entry(parent, name, as)
    else yield* this.#below(parent.entry(name), true, Buffer.alloc(0))
  }

  *#entry(parent: Folder, name: Buffer, path: Buffer): Generator<Buffer, void> {
    const place = parent.entry(name)
    try {
      const stats = lstatSync(place, { bigint: true })
      const head = { path, mode: Number(stats.mode) & 0o777, size: 0, mtimeNs: stats.mtimeNs }
      if (stats.isDirectory()) {
        yield headOf({ ...head, type: 'directory', mode: Number(stats.mode) & 0o3777, path: withSlash(path) })
        yield* this.#below(place, false, path)
      } else if (stats.isSymbolicLink()) {
        yield headOf({ ...head, type: 'symlink', link: readlinkSync(place, { encoding: 'buffer' }) })
      } else if (stats.isFIFO()) {
        yield headOf({ ...head, type: 'fifo' })
      } else if (stats.isFile()) {
        yield* this.#fileOrLink(place, stats, head)
      } else {
        this.#report.onNote(`${this.#show(path)}: left out, it is ${stats.isSocket() ? 'a socket' : 'a device'}`)
      }
    } catch (error) {
      this.problems.add(this.#show(path), error)
    }
  }

  *#below(place: Buffer, follow: boolean, path: Buffer): Generator<Buffer, void> {
    using folder = Folder.open(place, follow)
    for (const name of readdirSync(folder.entry(Buffer.from('.')), { encoding: 'buffer' }))
      yield* this.#entry(folder, name, path.length === 0 ? name : Buffer.concat([withSlash(path), name]))
  }

  *#fileOrLink(place: Buffer, stats: BigIntStats, head: Omit<EntryHead, 'type'>): Generator<Buffer, void> {
    const key = `${stats.dev}:${stats.ino}`
    const first = stats.nlink > 1n ? this.#linked.get(key) : undefined
    if (first !== undefined) {
      yield headOf({ ...head, type: 'hard link', link: first })
      return
    }
    const fd = openSync(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      yield* this.#file(fd, head)
    } finally {
      closeSync(fd)
    }
    if (stats.nlink > 1n) this.#linked.set(key, head.path)
    if ((stats.mode & 0o6000n) !== 0n) {
      this.#report.onNote(`${this.#show(head.path)}: set-user-id and set-group-id are left out`)
    }
  }

  *#file(fd: number, head: Omit<EntryHead, 'type'>): Generator<Buffer, void> {
    const before = fstatSync(fd, { bigint: true })
    const size = Number(before.size)
    const isSparse = before.blocks * 512n < before.size && size > 2 * HOLE_BYTES
    const extents = isSparse ? dataOf(fd, size) : [{ offset: 0, length: size }]
    const map = isSparse ? mapOf(extents) : Buffer.alloc(0)
    const packed = map.length + extents.reduce((sum, { length }) => sum + length, 0)
    yield headOf({
      ...head,
      type: 'file',
      size: packed,
      mtimeNs: before.mtimeNs,
      ...(isSparse ? { realSize: size } : {}),
    })
    yield map
    let short = false
    for (const extent of extents) short = (yield* piecesOf(fd, extent)) || short
    yield Buffer.alloc(paddingOf(packed))
    const after = fstatSync(fd, { bigint: true })
    if (short || after.size !== before.size || after.mtimeNs !== before.mtimeNs)
      this.problems.say(this.#show(head.path), 'it changed while it was read')
    this.#report.onFile(this.#show(head.path), size)
  }

  #show(path: Buffer): string {
    return pathText(Buffer.concat([Buffer.from(`${this.#shown.replace(/\/$/, '')}/`), path]))
  }
}

function withSlash(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.from('/')])
}

/** The bytes of a part of a file; what the file lacks by now are zeros. @returns whether it lacked any */
function* piecesOf(fd: number, { offset, length }: Extent): Generator<Buffer, boolean> {
  let short = false
  for (let at = offset; at < offset + length; ) {
    const piece = Buffer.alloc(Math.min(READ_BYTES, offset + length - at))
    const read = short ? 0 : readSync(fd, piece, 0, piece.length, at)
    if (read === 0) short = true
    const bytes = short ? piece.fill(0) : piece.subarray(0, read)
    at += bytes.length
    yield bytes
  }
  return short
}

/** The runs of a file that are not zeros. */
function dataOf(fd: number, size: number): Extent[] {
  const extents: { offset: number; length: number }[] = []
  const buffer = Buffer.alloc(READ_BYTES)
  for (let at = 0; at < size; ) {
    const read = readSync(fd, buffer, 0, Math.min(buffer.length, size - at), at)
    if (read === 0) break
    for (let from = 0; from < read; from += HOLE_BYTES) {
      const length = Math.min(HOLE_BYTES, read - from)
      if (isZero(buffer.subarray(from, from + length))) continue
      const last = extents.at(-1)
      if (last !== undefined && last.offset + last.length === at + from) last.length += length
      else extents.push({ offset: at + from, length })
    }
    at += read
  }
  // A file that ends with a hole says so by an empty run at its end, as GNU tar's do.
  return [...extents, { offset: size, length: 0 }]
}

const zeros = Buffer.alloc(HOLE_BYTES)

function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeros.subarray(0, bytes.length))
}

function mapOf(extents: readonly Extent[]): Buffer {
  const numbers = [extents.length, ...extents.flatMap(({ offset, length }) => [offset, length])]
  return padded(Buffer.from(numbers.map((value) => `${value}\n`).join('')))
}
