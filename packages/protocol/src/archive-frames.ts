import type { ErrorCode } from './errors.js'

/** A tar as it is; a connection that is cut is the only sign of one that is not complete. */
export const ARCHIVE_TYPE = 'application/x-tar'
/** A tar in frames, the last of which says how it ended: for clients that should tell their user why. */
export const FRAMED_ARCHIVE_TYPE = 'application/vnd.wrenn.framed-tar'

/** How an archive ended. */
export interface ArchiveEnd {
  /** Absent: all that can be archived is in it. */
  readonly error?: { readonly code: string; readonly message: string }
  /** What was left out or may be torn: a sentence for people each. */
  readonly notes: readonly string[]
}

/** What was read is no archive in frames, or a damaged one. */
export class ArchiveFrameError extends Error {
  override readonly name = 'ArchiveFrameError'
  /** Of the error table: who packed the frames is at fault. */
  readonly code = 'guest_error' satisfies ErrorCode
}

/** Kind of the frame, then the length of what follows as an unsigned 32-bit number, big-endian. */
const HEAD_BYTES = 5
const BYTES = 0
const END = 1
/** A frame beyond this is not from us. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024

/** What goes before so many bytes of the archive. */
export function frameHead(length: number): Uint8Array<ArrayBuffer> {
  return head(BYTES, length)
}

/** The last frame: without it the archive was cut short. */
export function endFrame(end: ArchiveEnd): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(JSON.stringify(end))
  const frame = new Uint8Array(HEAD_BYTES + text.length)
  frame.set(head(END, text.length))
  frame.set(text, HEAD_BYTES)
  return frame
}

function head(kind: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEAD_BYTES)
  bytes[0] = kind
  new DataView(bytes.buffer).setUint32(1, length)
  return bytes
}

/** Takes frames apart, however they were cut into pieces on their way. */
export class ArchiveUnframer {
  #end: ArchiveEnd | undefined
  #kind = BYTES
  /** Bytes of the frame that are still to come. */
  #left = 0
  /** A head or the last frame, as far as it has come. */
  #partial = new Uint8Array(0)

  /** How the archive ended, once its last frame was there. */
  get end(): ArchiveEnd | undefined {
    return this.#end
  }

  /** The bytes of the archive in this piece. @throws ArchiveFrameError when it is not made of frames */
  *push(piece: Uint8Array): Generator<Uint8Array> {
    for (let at = 0; at < piece.length; ) {
      if (this.#end !== undefined) throw new ArchiveFrameError('There are bytes after the end of the archive.')
      if (this.#left > 0 && this.#kind === BYTES) {
        const bytes = piece.subarray(at, at + this.#left)
        this.#left -= bytes.length
        at += bytes.length
        yield bytes
      } else {
        at += this.#collect(piece.subarray(at))
      }
    }
  }

  /** Takes what a head or the last frame lacks. @returns how many bytes that were */
  #collect(bytes: Uint8Array): number {
    const wanted = this.#kind === END ? this.#left : HEAD_BYTES - this.#partial.length
    const taken = bytes.subarray(0, wanted)
    const joined = new Uint8Array(this.#partial.length + taken.length)
    joined.set(this.#partial)
    joined.set(taken, this.#partial.length)
    this.#partial = joined
    if (this.#kind === END) this.#left -= taken.length
    if (taken.length === wanted) this.#complete()
    return taken.length
  }

  #complete(): void {
    const bytes = this.#partial
    this.#partial = new Uint8Array(0)
    if (this.#kind === END) {
      this.#end = parseEnd(new TextDecoder().decode(bytes))
      return
    }
    this.#kind = bytes[0] ?? BYTES
    this.#left = new DataView(bytes.buffer).getUint32(1)
    if (this.#kind > END || this.#left > MAX_FRAME_BYTES)
      throw new ArchiveFrameError('That is not an archive in frames.')
  }
}

function parseEnd(text: string): ArchiveEnd {
  const value = parseObject(text)
  const notes = 'notes' in value && Array.isArray(value.notes) ? value.notes.map(String) : []
  const error = 'error' in value ? parseError(value.error) : undefined
  return { notes, ...(error === undefined ? {} : { error }) }
}

function parseObject(text: string): object {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // Not JSON: the same as JSON that is no object.
  }
  if (typeof value === 'object' && value !== null) return value
  throw new ArchiveFrameError('The archive ends with something else than an end.')
}

function parseError(error: unknown): ArchiveEnd['error'] {
  if (typeof error !== 'object' || error === null) return undefined
  const code = 'code' in error ? String(error.code) : 'internal'
  const message = 'message' in error ? String(error.message) : 'The archive is not complete.'
  return { code, message }
}
