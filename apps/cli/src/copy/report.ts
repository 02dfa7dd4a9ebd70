import { AppError, errorText, isErrno } from '@wrenn/base'

/** What a copy tells while it runs. Paths are in the form of `pathText`. */
export interface CopyReport {
  readonly onFile: (path: string, sizeBytes: number) => void
  /** Something is missing, or not as it was, although nothing went wrong. */
  readonly onNote: (note: string) => void
}

/** What went wrong with single entries, told one by one; the copy goes on with the others. */
export class Problems {
  readonly #report: CopyReport
  #first: string | undefined
  #count = 0

  constructor(report: CopyReport) {
    this.#report = report
  }

  /** @throws what is not about one entry only: a full disk, a bug, the end of the stream */
  add(path: string, thrown: unknown): void {
    if (isErrno(thrown, 'ENOSPC', 'EDQUOT')) {
      throw new AppError('disk_full', `There is no room here for ${path}.`, { cause: thrown })
    }
    const text = AppError.is(thrown, 'conflict', 'invalid_request', 'not_a_directory')
      ? thrown.message
      : errnoText(thrown)
    this.say(path, text)
  }

  say(path: string, text: string): void {
    const line = `${path}: ${text}`
    this.#first ??= line
    this.#count++
    this.#report.onNote(line)
  }

  /** @throws AppError `copy_incomplete` when there were any */
  finish(): void {
    if (this.#first === undefined) return
    const others = this.#count === 1 ? '' : `, and ${this.#count - 1} more like it`
    throw new AppError('copy_incomplete', `Not everything was copied: ${this.#first}${others}.`)
  }
}

const words: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
  ENOENT: 'it is gone',
  EISDIR: 'a directory is in its place',
  ENOTEMPTY: 'a directory is in its place',
  EEXIST: 'something else is in its place',
  ENOTDIR: 'something that is no directory is in its place',
  ELOOP: 'a link is in its place',
  ENAMETOOLONG: 'the name is too long',
  EILSEQ: 'the name has bytes that this file system does not take',
  EMFILE: 'the tree is too deep',
  EMLINK: 'it has too many hard links',
}

/** @throws what is not a refusal of the system */
function errnoText(thrown: unknown): string {
  if (!(thrown instanceof Error && 'syscall' in thrown && 'code' in thrown)) throw thrown
  return words[String(thrown.code)] ?? errorText(thrown)
}
