import { stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { AppError, isErrno } from '@wrenn/base'
import { hostToolEnvironment } from '../exec.js'
import { spawnTool } from '../spawn-tool.js'

/** One allocated piece of a file, in bytes. */
export interface Extent {
  readonly offset: number
  readonly length: number
  /** Byte address on the file system's device; `undefined` where there is none to compare (inline, delayed, encoded). */
  readonly physical: number | undefined
  /** Another file, or another place of this one, has the same blocks. */
  readonly shared: boolean
  /** Preallocated: reads as zeros. */
  readonly unwritten: boolean
}

/** How the listing is ended; the tool is killed then. */
export interface ExtentOptions {
  readonly signal?: AbortSignal | undefined
}

/**
 * `0:        0..    4095:   14680064..  14684159:   4096:             shared` of `filefrag -v -b1`: number, logical, physical,
 * length, where the last one ended when it is not adjacent, flags.
 */
const line = /^\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+)\.\.\s*\d+:\s*(\d+):(?:\s*\d+:)?\s*(\S*)$/
const withoutAddress = ['unknown_loc', 'delalloc', 'inline', 'encoded', 'encrypted', 'not_aligned', 'tail_packed']

/**
 * The extents of a file in the order of their offsets, as its file system has them. Writes the file's dirty pages out first:
 * FIEMAP does not tell of data that waits in the page cache, and would call an overwritten block still shared.
 * @throws AppError `engine_failure`, with `details.unsupported` where the file system has no FIEMAP (tmpfs, overlayfs).
 * @throws AppError `engine_failure` when filefrag fails or is missing; the signal's reason.
 */
export async function* extentsOf(path: string, options: ExtentOptions = {}): AsyncGenerator<Extent, void, void> {
  options.signal?.throwIfAborted()
  const child = spawnTool('filefrag', ['-s', '-v', '-b1', '--', path], {
    env: hostToolEnvironment,
    stdin: 'ignore',
    ...(options.signal ? { signal: options.signal } : {}),
    killSignal: 'SIGKILL',
  })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString('utf8')).slice(-4096)
  })
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 128))
  })
  ended.catch(() => {}) // awaited below; a reader that leaves early must not leave an unhandled rejection
  try {
    for await (const text of createInterface({ input: child.stdout })) {
      const extent = parseExtent(text)
      if (extent) yield extent
    }
    const code = await ended
    if (code !== 0 || stderr.includes('unsupported')) throw new FilefragFailure(code, stderr.trim())
  } catch (error) {
    options.signal?.throwIfAborted()
    if (isErrno(error, 'ENOENT')) {
      throw new AppError('engine_failure', 'The program `filefrag` is not installed; `wrenn doctor` names the package.')
    }
    throw error instanceof FilefragFailure ? error.toAppError(path) : error
  } finally {
    child.kill('SIGKILL')
  }
}

class FilefragFailure extends Error {
  constructor(
    readonly code: number,
    readonly stderr: string,
  ) {
    super(stderr)
  }

  toAppError(path: string): AppError {
    const details = { unsupported: this.stderr.includes('unsupported') }
    const message = `\`filefrag ${path}\` failed with exit code ${this.code}: ${this.stderr}`
    return new AppError('engine_failure', message, { details })
  }
}

/** One line of filefrag's table; `undefined` for its other lines. */
export function parseExtent(text: string): Extent | undefined {
  const match = line.exec(text)
  if (!match) return undefined
  const flags = (match[4] ?? '').split(',')
  return {
    offset: Number(match[1]),
    physical: withoutAddress.some((flag) => flags.includes(flag)) ? undefined : Number(match[2]),
    length: Number(match[3]),
    shared: flags.includes('shared'),
    unwritten: flags.includes('unwritten'),
  }
}

/** A stretch of a file that may hold something else than zeros. */
export interface DataRange {
  readonly offset: number
  readonly length: number
}

/**
 * The written parts of a file, in order, adjacent ones merged; never past its end. Writes dirty pages out first. On a file
 * system that cannot tell, the whole file is one range.
 * @throws AppError `engine_failure`; the signal's reason.
 */
export async function* dataRanges(path: string, options: ExtentOptions = {}): AsyncGenerator<DataRange, void, void> {
  const { size } = await stat(path)
  let open: { offset: number; end: number } | undefined
  try {
    for await (const { offset, length, unwritten } of extentsOf(path, options)) {
      if (unwritten || offset >= size) continue
      const end = Math.min(offset + length, size)
      if (open && open.end >= offset) {
        open.end = Math.max(open.end, end)
        continue
      }
      if (open) yield { offset: open.offset, length: open.end - open.offset }
      open = { offset, end }
    }
  } catch (error) {
    if (!isUnsupported(error)) throw error
    open = size > 0 ? { offset: 0, end: size } : undefined
  }
  if (open) yield { offset: open.offset, length: open.end - open.offset }
}

/** Whether `error` says that the file system has no extent map. */
export function isUnsupported(error: unknown): boolean {
  return AppError.is(error, 'engine_failure') && error.details?.unsupported === true
}
