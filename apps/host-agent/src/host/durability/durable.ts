import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { errorText, isErrno } from '@wrenn/base'
import { type DigestOptions, sparseDigest } from './digest.js'
import { syncAll } from './sync.js'

/** Size and digest of one file; the size alone finds a file that was cut. */
export interface FileChecksum {
  readonly bytes: number
  /** As `sparseDigest` defines it, hexadecimal. */
  readonly sha256: string
}

/** Checksums by file name; plain JSON. */
export type Checksums = Readonly<Record<string, FileChecksum>>

/**
 * Writes the files of `dir` and the directory out to the disk, then reads them for their checksums. Nothing is changed, so it
 * may be aborted at any time and called again. A QEMU may have the files mapped, but must not run.
 * @throws AppError `engine_failure`, `disk_full`, `snapshot_damaged` when a file is missing; the signal's reason.
 */
export async function makeDurable(
  dir: string,
  names: readonly string[],
  options: DigestOptions = {},
): Promise<Checksums> {
  await syncAll([...names.map((name) => join(dir, name)), dir], { signal: options.signal })
  const checksums: Record<string, FileChecksum> = {}
  for (const name of names) checksums[name] = await sparseDigest(join(dir, name), options)
  return checksums
}

/**
 * Compares the files of `dir` with their checksums, sizes first: a truncated file is found without reading anything.
 * @returns `undefined`, or a sentence that names the first damaged file.
 * @throws the signal's reason, and what is no statement about the files (too many open files, no filefrag).
 */
export async function verifyDurable(
  dir: string,
  checksums: Checksums,
  options: DigestOptions = {},
): Promise<string | undefined> {
  for (const [name, expected] of Object.entries(checksums)) {
    const problem = await sizeProblem(join(dir, name), name, expected.bytes)
    if (problem !== undefined) return problem
  }
  for (const [name, expected] of Object.entries(checksums)) {
    const problem = await contentProblem(join(dir, name), name, expected, options)
    if (problem !== undefined) return problem
  }
  return undefined
}

async function sizeProblem(path: string, name: string, bytes: number): Promise<string | undefined> {
  try {
    const { size } = await stat(path)
    if (size === bytes) return undefined
    return `The file ${name} is ${size < bytes ? 'truncated' : 'too long'}: it has ${size} bytes, not ${bytes}.`
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return `The file ${name} is missing.`
    throw error
  }
}

async function contentProblem(
  path: string,
  name: string,
  expected: FileChecksum,
  options: DigestOptions,
): Promise<string | undefined> {
  try {
    const { sha256 } = await sparseDigest(path, options)
    if (sha256 === expected.sha256) return undefined
    return `The file ${name} is damaged: its content is not what was saved.`
  } catch (error) {
    // What a disk or a btrfs checksum reports for rotten blocks.
    if (isErrno(error, 'EIO', 'EUCLEAN', 'EBADMSG')) return `The file ${name} cannot be read: ${errorText(error)}.`
    throw error
  }
}
