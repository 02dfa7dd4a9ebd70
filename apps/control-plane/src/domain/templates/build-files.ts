import { createHash, randomBytes } from 'node:crypto'
import type { Stats } from 'node:fs'
import { mkdir, open, readdir, rename, rm, rmdir, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline as pipe, Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, isErrno, KeyedMutex } from '@wrenn/base'

/** From a link until its build is let go: so much longer than a build itself its files are looked after. */
export const UPLOAD_SPARE_MS = 60 * 60_000
const MIB = 1024 * 1024
const FLOOR_BYTES = 64 * 1024
const READ_BYTES = 256 * 1024
/** Of earlier versions, which did not seal them, they were called `.tar`; nobody looks at those. */
const SUFFIX = '.sealed'
const UNFINISHED = '.part'
/** At the end of each file: the SHA-256 of all before it. */
const SEAL = /^wrenn-sha256 ([0-9a-f]{64})\n$/
const SEAL_BYTES = 78
/** Longer than the pauses of any upload that still goes on. */
const ABANDONED_MS = 60 * 60_000

interface BuildFilesOptions {
  /** `undefined`: there are no files, and none are taken. */
  readonly dir: string | undefined
  /** Of one upload. */
  readonly uploadBytes: number
  /** Of all that are kept of a team. */
  readonly filesBytes: number
  /** A file counts at least this much, for it takes an inode and looking after. @default 65 536 */
  readonly floorBytes?: number
  /** So long an upload is not given up for the sake of another one: its build may still be to come. */
  readonly freshMs: number
}

/** Files that were uploaded, to be read once. */
export interface OpenedFiles {
  readonly stream: Readable
  readonly sizeBytes: number
  /** Without which the stream fails at its end. */
  readonly sha256: string
}

/** A team's upload, by the hash that its client calls it by. */
interface FilesRef {
  readonly teamId: string
  readonly hash: string
}

interface Kept {
  readonly path: string
  /** What it counts. */
  readonly bytes: number
  readonly usedAtMs: number
}

/**
 * Uploaded files of builds: a folder for each team, in it a file for each hash. Its own end says what it was when it was kept, so that what has changed
 * on the disk since is given to nobody as whole.
 */
export class BuildFiles {
  readonly #options: BuildFilesOptions
  /** Of teams. */
  readonly #turns = new KeyedMutex()
  /** What uploads under way count, by team. */
  readonly #incoming = new Map<string, number>()

  constructor(options: BuildFilesOptions) {
    this.#options = options
  }

  /** Whether the upload is there; it is kept for a build from now on. */
  async has(teamId: string, hash: string): Promise<boolean> {
    const now = new Date()
    return await known(async () => {
      await utimes(this.#path({ teamId, hash }), now, now)
      return true
    }, false)
  }

  /**
   * Takes an upload, which replaces an earlier one of its hash once it is whole. What is over a limit is not read on.
   * @param expectedBytes What the client says it will be; nothing relies on it.
   * @throws AppError `too_large`, `disk_full`, `not_supported`, `invalid_request` when it breaks off
   */
  async receive(ref: FilesRef, source: Readable, expectedBytes: number | undefined): Promise<void> {
    const { uploadBytes } = this.#options
    if (expectedBytes !== undefined && expectedBytes > uploadBytes) throw this.#tooLarge()
    const path = this.#path(ref)
    const keptBytes = await this.#makeRoom(ref, this.#weight(expectedBytes ?? 0))
    await mkdir(this.#folder(ref.teamId), { recursive: true, mode: 0o700 })
    const draft = `${path}.${randomBytes(8).toString('hex')}${UNFINISHED}`
    let received = 0
    let weight = 0
    const count = (bytes: number): void => {
      received += bytes
      const more = this.#weight(received) - weight
      weight += more
      this.#count(ref.teamId, keptBytes, more, received)
    }
    try {
      count(0)
      // Open before anything can break off: what a stream is still opening then would be made after it was removed.
      const file = await open(draft, 'wx', 0o600)
      await pipeline(sealed(counted(source, count)), file.createWriteStream({ flush: true }))
      await this.#keep(ref, draft, received)
    } catch (error) {
      await rm(draft, { force: true })
      throw uploadFailure(error)
    } finally {
      this.#uncount(ref.teamId, weight)
    }
  }

  /**
   * The bytes of an upload; the caller reads them to their end, or destroys them. Those that are not what was kept fail at their end, and are here no more.
   * @throws AppError `build_failed` when they are not there
   */
  async open(teamId: string, hash: string): Promise<OpenedFiles> {
    await this.has(teamId, hash)
    const path = this.#path({ teamId, hash })
    const file = await known(async () => await open(path, 'r'), undefined)
    if (file === undefined) {
      throw new AppError('build_failed', 'The files of this step are not here any more; build again to upload them.')
    }
    try {
      const { size, ino } = await file.stat()
      const endsAt = Math.max(0, size - SEAL_BYTES)
      const { buffer } = await file.read(Buffer.alloc(SEAL_BYTES), { position: endsAt })
      // It may have been uploaded anew meanwhile, or is being.
      const onDamage = (): Promise<void> =>
        this.#turns.run(teamId, async () => {
          if ((await known(() => stat(path), undefined))?.ino === ino) await rm(path, { force: true })
        })
      const sha256 = SEAL.exec(buffer.toString('latin1'))?.[1] ?? ''
      const check = checked(sha256, onDamage)
      const bytes =
        endsAt === 0 ? Readable.from([]) : file.createReadStream({ end: endsAt - 1, highWaterMark: READ_BYTES })
      if (endsAt === 0) await file.close()
      return { stream: pipe(bytes, check, () => {}), sizeBytes: endsAt, sha256 }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /**
   * SHA-256 and size of what an upload has, whatever its client calls it.
   * @throws AppError `build_failed` when it is not there; the signal's reason
   */
  async digest(
    teamId: string,
    hash: string,
    signal: AbortSignal,
  ): Promise<{ readonly sha256: string; readonly sizeBytes: number }> {
    const { stream, sha256 } = await this.open(teamId, hash)
    let sizeBytes = 0
    for await (const chunk of stream) {
      signal.throwIfAborted()
      sizeBytes += chunk.length
    }
    return { sha256, sizeBytes }
  }

  /** Removes uploads that no build has used for so long, and what broken ones have left. */
  async prune(maxUnusedMs: number): Promise<void> {
    const { dir } = this.#options
    if (dir === undefined) return
    for (const teamId of await known(() => readdir(dir), [])) {
      for (const { path, usedAtMs } of await this.#list(teamId)) {
        const maxMs = path.endsWith(UNFINISHED) ? Math.min(ABANDONED_MS, maxUnusedMs) : maxUnusedMs
        if (Date.now() - usedAtMs > maxMs) await rm(path, { force: true })
      }
      // One that is not empty stays.
      await rmdir(join(dir, teamId)).catch(() => {})
    }
  }

  /** One upload of a team after the other: others that began when it did may have filled the room meanwhile. */
  async #keep(ref: FilesRef, draft: string, bytes: number): Promise<void> {
    await this.#turns.run(ref.teamId, async () => {
      const total = (await this.#others(ref)).reduce((sum, one) => sum + one.bytes, 0)
      if (total + this.#weight(bytes) > this.#options.filesBytes) throw this.#tooMuch()
      await rename(draft, this.#path(ref))
    })
  }

  /** What is kept of a team beside this one. */
  async #others({ teamId, hash }: FilesRef): Promise<Kept[]> {
    const replaced = this.#path({ teamId, hash })
    return (await this.#list(teamId)).filter(({ path }) => path !== replaced && !path.endsWith(UNFINISHED))
  }

  #folder(teamId: string): string {
    const { dir } = this.#options
    if (dir !== undefined) return join(dir, teamId)
    throw new AppError('not_supported', 'This platform takes no files for builds: it has no WRENN_BUILD_FILES_DIR.')
  }

  #path({ teamId, hash }: FilesRef): string {
    return join(this.#folder(teamId), `${hash}${SUFFIX}`)
  }

  /** Gives up uploads that were used longest ago and are not fresh. @returns what the others take */
  async #makeRoom(ref: FilesRef, bytes: number): Promise<number> {
    const { filesBytes, freshMs } = this.#options
    const kept = await this.#others(ref)
    let total = kept.reduce((sum, one) => sum + one.bytes, 0)
    for (const one of kept.sort((a, b) => a.usedAtMs - b.usedAtMs)) {
      if (total + bytes <= filesBytes || Date.now() - one.usedAtMs < freshMs) break
      await rm(one.path, { force: true })
      total -= one.bytes
    }
    return total
  }

  #weight(bytes: number): number {
    return Math.max(bytes, this.#options.floorBytes ?? FLOOR_BYTES)
  }

  /** @throws AppError `too_large` */
  #count(teamId: string, keptBytes: number, bytes: number, total: number): void {
    const { uploadBytes, filesBytes } = this.#options
    const incoming = (this.#incoming.get(teamId) ?? 0) + bytes
    this.#incoming.set(teamId, incoming)
    if (total > uploadBytes) throw this.#tooLarge()
    if (keptBytes + incoming > filesBytes) throw this.#tooMuch()
  }

  #uncount(teamId: string, bytes: number): void {
    const left = (this.#incoming.get(teamId) ?? 0) - bytes
    if (left > 0) this.#incoming.set(teamId, left)
    else this.#incoming.delete(teamId)
  }

  #tooMuch(): AppError {
    const max = this.#options.filesBytes / MIB
    return new AppError(
      'too_large',
      `The files of the team's builds would take more than ${max} MiB (WRENN_BUILD_FILES_MAX_MIB).`,
    )
  }

  #tooLarge(): AppError {
    const max = this.#options.uploadBytes / MIB
    return new AppError('too_large', `An upload may have ${max} MiB (WRENN_BUILD_UPLOAD_MAX_MIB).`)
  }

  async #list(teamId: string): Promise<Kept[]> {
    const folder = this.#folder(teamId)
    const names = await known(() => readdir(folder), [])
    const found = names.map(async (name) => {
      const path = join(folder, name)
      const stats: Stats | undefined = await known(() => stat(path), undefined)
      return stats === undefined
        ? []
        : [{ path, bytes: this.#weight(stats.size - SEAL_BYTES), usedAtMs: isRead(name) ? stats.mtimeMs : 0 }]
    })
    return (await Promise.all(found)).flat()
  }
}

/** Files of an earlier version are used by nobody. */
function isRead(name: string): boolean {
  return name.endsWith(SUFFIX) || name.endsWith(UNFINISHED)
}

/** Tells of each piece before it is passed on. The source stays open when that is refused, for an answer to be given on it. */
async function* counted(source: Readable, count: (bytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of source.iterator({ destroyOnReturn: false })) {
    const bytes = Buffer.from(chunk)
    count(bytes.length)
    yield bytes
  }
}

async function* sealed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const sum = createHash('sha256')
  for await (const bytes of source) {
    sum.update(bytes)
    yield bytes
  }
  yield Buffer.from(`wrenn-sha256 ${sum.digest('hex')}\n`)
}

/** Passes all on, and fails after the last byte when together they are not of that digest, once `onDamage` is done. */
function checked(sha256: string, onDamage: () => Promise<void>): Transform {
  const sum = createHash('sha256')
  return new Transform({
    transform: (bytes: Buffer, _encoding, done) => {
      sum.update(bytes)
      done(null, bytes)
    },
    flush: (done) => {
      if (sum.digest('hex') === sha256) return done()
      const text = 'The files of this step are not what was kept of them, and are removed; build again to upload them.'
      onDamage().then(() => done(new AppError('build_failed', text)), done)
    },
  })
}

function uploadFailure(error: unknown): AppError {
  if (AppError.is(error)) return error
  if (isErrno(error, 'ENOSPC', 'EDQUOT')) return new AppError('disk_full', 'The disk for the files of builds is full.')
  if (isErrno(error, 'ERR_STREAM_PREMATURE_CLOSE', 'ECONNRESET')) {
    return new AppError('invalid_request', 'The upload broke off before it was complete.')
  }
  return AppError.from(error)
}

/** What is not there, or goes meanwhile, is no error. */
async function known<T>(task: () => Promise<T>, otherwise: T): Promise<T> {
  try {
    return await task()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return otherwise
    throw error
  }
}
