import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import type { CapsuleRecord } from './types.js'

const SUFFIX = '.json'
const UNREADABLE = '.unreadable'

/**
 * Digests of the read-only files that the capsules of a journal need, for others than its owner, who may be at work on it;
 * `undefined` while a record cannot be read, for it may be put right again.
 */
export async function layersOfRecords(dir: string): Promise<string[] | undefined> {
  const needed: string[] = []
  for (const name of await readdir(dir).catch(() => [])) {
    if (name.endsWith(UNREADABLE)) return undefined
    if (!name.endsWith(SUFFIX)) continue
    try {
      const record: CapsuleRecord = JSON.parse(await readFile(join(dir, name), 'utf8')) // as `put` wrote it
      needed.push(...record.image.layers)
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) return undefined
    }
  }
  return needed
}

/** Without what only memory may have. */
function written(record: CapsuleRecord): CapsuleRecord {
  const { rules, ...egress } = record.egress
  return rules === undefined ? record : { ...record, egress }
}

/** A policy whose rules are not known any more is none of its revision: the control plane tells it again. */
function remembered(record: CapsuleRecord): CapsuleRecord {
  return record.egress?.intercept === true ? { ...record, egressRevision: 0 } : record
}

/**
 * One JSON file per capsule, replaced by rename. Not fsynced unless asked: the journal must survive the death of any process,
 * and a power loss ends every guest it describes. What a durable state hangs on is asked for.
 */
export class Journal {
  readonly #dir: string
  readonly #logger: Logger
  readonly #unreadable = new Set<string>()
  #writes = 0

  constructor(dir: string, logger: Logger) {
    this.#dir = dir
    this.#logger = logger
  }

  /** Capsules whose record could not be read, at this start or an earlier one: their files are nobody's garbage. */
  get unreadable(): ReadonlySet<string> {
    return this.#unreadable
  }

  /** All records that can be read; the others stay as files beside them and are named in {@link unreadable}. */
  async open(): Promise<CapsuleRecord[]> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 })
    const records: CapsuleRecord[] = []
    for (const name of await readdir(this.#dir)) {
      const path = join(this.#dir, name)
      if (name.endsWith('.tmp')) {
        await rm(path, { force: true })
        continue
      }
      if (name.endsWith(`${SUFFIX}${UNREADABLE}`))
        this.#unreadable.add(name.slice(0, -SUFFIX.length - UNREADABLE.length))
      if (!name.endsWith(SUFFIX)) continue
      try {
        records.push(remembered(JSON.parse(await readFile(path, 'utf8')))) // as `put` wrote it
      } catch (error) {
        // Keep what cannot be read for a person to look at, out of the way of the next start.
        await rename(path, `${path}${UNREADABLE}`).catch(() => {})
        this.#unreadable.add(name.slice(0, -SUFFIX.length))
        this.#logger.error({ err: error, path }, 'journal.unreadable')
      }
    }
    return records
  }

  /** @throws AppError `disk_full` */
  async put(record: CapsuleRecord): Promise<void> {
    const path = this.#path(record.capsuleId)
    const beside = `${path}.${++this.#writes}.tmp`
    try {
      await writeFile(beside, JSON.stringify(written(record)), { mode: 0o600 })
      await rename(beside, path)
    } catch (error) {
      await rm(beside, { force: true }).catch(() => {}) // the next start removes it, too
      if (!isErrno(error, 'ENOSPC', 'EDQUOT')) throw error
      throw new AppError('disk_full', `The disk of ${this.#dir}, where the host notes its capsules, is full.`, {
        cause: error,
      })
    }
  }

  /** What was put last survives a power loss when this returns. */
  async sync(capsuleId: string): Promise<void> {
    for (const path of [this.#path(capsuleId), this.#dir]) {
      try {
        await using file = await open(path, 'r')
        await file.sync()
      } catch (error) {
        if (!isErrno(error, 'ENOENT')) throw error // it was removed meanwhile
      }
    }
  }

  /** Idempotent. */
  async remove(capsuleId: string): Promise<void> {
    try {
      await rm(this.#path(capsuleId))
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }

  #path(capsuleId: string): string {
    return join(this.#dir, `${capsuleId}${SUFFIX}`)
  }
}
