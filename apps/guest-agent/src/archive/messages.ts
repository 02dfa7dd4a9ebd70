import { AppError, pathText } from '@wrenn/base'
import type { ErrorCode } from '@wrenn/protocol'

/** As many of tar's sentences are kept; the rest is counted. */
const MAX_NOTES = 200
const MAX_NOTE_BYTES = 4 * 1024

/** Sentences of GNU tar that say nothing by themselves. */
const EMPTY = /^(?:Exiting with failure status due to previous errors|Error is not recoverable: exiting now)$/

const meanings: readonly (readonly [RegExp, ErrorCode])[] = [
  [/No space left on device|Disk quota exceeded|File too large/, 'disk_full'],
  [/Permission denied|Operation not permitted|Read-only file system/, 'permission_denied'],
  [/file changed as we read it|File shrank by|File removed before we read it|Directory renamed before/, 'conflict'],
  [/Is a directory|Not a directory|File exists|Directory not empty|Text file busy/, 'conflict'],
  [
    /does not look like a tar archive|Unexpected EOF|Archive is compressed|Skipping to next header|[Mm]alformed|too long|Too many levels/,
    'invalid_request',
  ],
  [/Cannot (?:open|stat): No such file/, 'file_not_found'],
]

/** What tar says on its error stream, line by line. */
export class TarMessages {
  readonly #notes: string[] = []
  #more = 0
  #partial = ''

  /** @param text in latin1, a character for each byte */
  add(text: string): void {
    const lines = (this.#partial + text).split('\n')
    this.#partial = (lines.pop() ?? '').slice(0, MAX_NOTE_BYTES)
    for (const line of lines) this.#keep(line)
  }

  #keep(line: string): void {
    const note = readable(line.replace(/^\S*tar: /, '').slice(0, MAX_NOTE_BYTES))
    if (note === '' || EMPTY.test(note)) return
    if (this.#notes.length < MAX_NOTES) this.#notes.push(note)
    else this.#more++
  }

  /** What tar said, a line each, without what is of no interest; the last one counts those that were too many. */
  get notes(): readonly string[] {
    return this.#more === 0 ? this.#notes : [...this.#notes, `and ${this.#more} more`]
  }

  /** Whether the disk was full, which explains all that failed after it. */
  get isFull(): boolean {
    return this.#notes.some((note) => codeOf(note) === 'disk_full')
  }

  /** The failure that tar ended with. `what`: how to begin the sentence. */
  failure(what: string): AppError {
    const codes = this.#notes.map(codeOf)
    // A full disk explains all that failed after it.
    const at = Math.max(0, codes.includes('disk_full') ? codes.indexOf('disk_full') : codes.findIndex(Boolean))
    const first = this.#notes[at] ?? 'tar gave no reason'
    const others = this.#notes.length + this.#more - 1
    const text = `${what}: ${first}${others > 0 ? `; and ${others} more like it` : ''}`
    return new AppError(codes[at] ?? 'guest_error', text)
  }
}

function codeOf(note: string): ErrorCode | undefined {
  return meanings.find(([pattern]) => pattern.test(note))?.[1]
}

/**
 * tar writes bytes past ASCII, and characters that would act on a terminal, as octal escapes. The former become text again, the
 * latter stay as they are.
 */
function readable(line: string): string {
  const bytes = line.replace(/\\([2-3][0-7]{2})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
  return pathText(Buffer.from(bytes, 'latin1'))
}
