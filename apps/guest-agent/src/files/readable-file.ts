import { type BigIntStats, fstatSync, statfsSync } from 'node:fs'
import { AppError, isErrno } from '@wrenn/base'
import { readHere } from './descriptor-io.js'
import { descriptorPath } from './kernel-path.js'

/** What is read before an answer begins: all of most files. */
const HEAD_BYTES = 256 * 1024
/** Timestamps come from a clock that ticks every 1 to 10 ms (CONFIG_HZ): of two changes within a tick only one can be told. */
const SETTLED_AFTER_MS = 50

const NS_PER_MS = 1_000_000n

/** What of a file's status changes with its content. */
export type FileVersion = Pick<BigIntStats, 'ino' | 'size' | 'mtimeNs' | 'ctimeNs'>

/** An open file as it turned out to be when its first bytes were read. */
export interface ReadableFile {
  /** How many bytes it has; `undefined` when only its end will tell. */
  readonly sizeBytes: number | undefined
  /** Its first bytes: all of them when `sizeBytes` is no more, none where it is trusted without a look. */
  readonly head: Buffer
  readonly validators: Validators
}

/** What tells one version of a file from another (RFC 9110 §8.8); absent where nothing does so reliably. */
export interface Validators {
  /** A strong entity tag. */
  readonly etag?: string
  /** The file may change once more without another tag: clients are not told the tag yet, for what they have must stay true. */
  readonly isFresh?: true
  readonly modifiedMs?: number
}

/**
 * Reads the beginning of an open file and finds out how long it is. Files of `/proc` and `/sys` say 0 or 4096 bytes and have
 * others: what was read counts, and such a file has no validators, for its times say nothing about its content.
 * @throws AppError `invalid_request` for a file that the kernel refuses to read
 */
export async function inspect(fd: number, path: string): Promise<ReadableFile> {
  const before = fstatSync(fd, { bigint: true })
  if (isOnDisk(before) && before.size > HEAD_BYTES)
    return { sizeBytes: Number(before.size), head: Buffer.alloc(0), validators: validatorsOf(before) }
  const { bytes: head, hasEnded } = await readHead(fd, path, before)
  const after = fstatSync(fd, { bigint: true })
  const validators = isSame(before, after) ? validatorsOf(after) : {}
  const length = BigInt(head.length)
  if (hasEnded) return { sizeBytes: head.length, head, validators: length === after.size ? validators : {} }
  if (after.size >= length && (isOnDisk(after) || after.size > 0n))
    return { sizeBytes: Number(after.size), head, validators }
  return { sizeBytes: undefined, head, validators: {} }
}

/** What a reader of an open file would be told now: nothing of one that the kernel makes, whose file system has no blocks at all. */
export function currentValidators(fd: number): Validators {
  return statfsSync(descriptorPath(fd)).blocks === 0 ? {} : validatorsOf(fstatSync(fd, { bigint: true }))
}

/** True for a file with blocks of its own. Those of `/proc` and `/sys` have none; tiny and sparse ones on a disk may have none. */
function isOnDisk(stats: BigIntStats): boolean {
  return stats.blocks > 0n
}

async function readHead(
  fd: number,
  path: string,
  stats: BigIntStats,
): Promise<{ readonly bytes: Buffer; readonly hasEnded: boolean }> {
  const buffer = Buffer.allocUnsafeSlow(HEAD_BYTES)
  let length = 0
  try {
    while (length < buffer.length) {
      const bytesRead = await readHere(fd, buffer, length, buffer.length - length)
      length += bytesRead
      const isComplete = isOnDisk(stats) && BigInt(length) === stats.size
      if (bytesRead === 0 || isComplete) return { bytes: buffer.subarray(0, length), hasEnded: true }
    }
  } catch (error) {
    throw isOnDisk(stats) ? error : unreadable(error, path)
  }
  return { bytes: buffer, hasEnded: false }
}

/** Files made by the kernel say no in many ways to a reader they are not meant for. */
function unreadable(error: unknown, path: string): unknown {
  if (isErrno(error, 'EACCES', 'EPERM')) {
    return new AppError('permission_denied', `path '${path}' is not accessible for the user`, { cause: error })
  }
  if (!(error instanceof Error && 'code' in error)) return error
  return new AppError('invalid_request', `path '${path}' cannot be read: ${String(error.code)}`, { cause: error })
}

function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs
}

/**
 * The change time is in the tag because anybody can set the other one back. A change time may be some of a millisecond after `nowMs`:
 * newer kernels (6.13) give a file that is being looked at times finer than a tick, and `Date.now()` drops what is below one.
 */
export function validatorsOf(stats: FileVersion, nowMs = Date.now()): Validators {
  const { ino, size, mtimeNs, ctimeNs } = stats
  const modifiedMs = Number(mtimeNs / NS_PER_MS)
  const etag = `"${[ino, size, mtimeNs, ctimeNs].map((each) => each.toString(36)).join('-')}"`
  const awayMs = Math.abs(nowMs - Number(ctimeNs / NS_PER_MS))
  return { modifiedMs, etag, ...(awayMs < SETTLED_AFTER_MS ? { isFresh: true } : {}) }
}
