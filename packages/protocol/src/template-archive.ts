/**
 * An archive of a template is a tar of zstd whose end says what it is: two frames that every zstd skips, a label of fixed size and a seal.
 * @see https://datatracker.ietf.org/doc/html/rfc8878#section-3.1.2
 */
const FORMAT = 'wrenn-template'
/** Of archives that are written, and of those that are read. */
export const TEMPLATE_ARCHIVE_VERSION = 1
export const TEMPLATE_ARCHIVE_TYPE = 'application/vnd.wrenn.template+zstd'

const HEAD_BYTES = 8
const LABEL_MAGIC = 0x184d2a5d
const SEAL_MAGIC = 0x184d2a5e
const LABEL_BYTES = 1024
const DIGEST_BYTES = 32
/** The seal is the end: what it is the digest of is all before it. */
export const TEMPLATE_SEAL_BYTES = HEAD_BYTES + DIGEST_BYTES
/** Of the label and the seal together. */
export const TEMPLATE_TAIL_BYTES = HEAD_BYTES + LABEL_BYTES + TEMPLATE_SEAL_BYTES

/** What the end of an archive says. */
export interface TemplateTail {
  readonly version: number
  /** Of the template where it was exported. */
  readonly name: string
  /** SHA-256 of all before the seal. */
  readonly digest: Uint8Array
}

/** The label of an archive: what it is, readable without unpacking it. */
export function templateLabel(name: string): Uint8Array {
  const text = JSON.stringify({ format: FORMAT, version: TEMPLATE_ARCHIVE_VERSION, name })
  return frame(LABEL_MAGIC, new TextEncoder().encode(text.padEnd(LABEL_BYTES)))
}

/** What an archive ends with. @param digest SHA-256 of all before, its label too */
export function templateSeal(digest: Uint8Array): Uint8Array {
  return frame(SEAL_MAGIC, digest)
}

/** Reads the last {@link TEMPLATE_TAIL_BYTES} of a file; `undefined` for what is no archive of a template, or a damaged one. */
export function readTemplateTail(tail: Uint8Array): TemplateTail | undefined {
  if (tail.length !== TEMPLATE_TAIL_BYTES) return undefined
  const label = contentOf(tail.subarray(0, HEAD_BYTES + LABEL_BYTES), LABEL_MAGIC)
  const digest = contentOf(tail.subarray(HEAD_BYTES + LABEL_BYTES), SEAL_MAGIC)
  if (label === undefined || digest === undefined) return undefined
  try {
    const said: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(label))
    if (typeof said !== 'object' || said === null) return undefined
    const { format, version, name } = said as Readonly<Record<string, unknown>> // each is judged
    if (format !== FORMAT || typeof version !== 'number' || typeof name !== 'string') return undefined
    return { version, name, digest }
  } catch {
    return undefined // no JSON
  }
}

function frame(magic: number, content: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEAD_BYTES + content.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, magic, true)
  view.setUint32(4, content.length, true)
  bytes.set(content, HEAD_BYTES)
  return bytes
}

function contentOf(bytes: Uint8Array, magic: number): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(0, true) !== magic || view.getUint32(4, true) !== bytes.length - HEAD_BYTES) return undefined
  return new Uint8Array(bytes.subarray(HEAD_BYTES))
}
