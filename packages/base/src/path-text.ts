/** What stands for one byte that is not UTF-8: the replacement character, then the byte in two hexadecimal digits. */
const ESCAPE = '\ufffd'
const ESCAPED_BYTE = /\ufffd([89a-f][0-9a-f])/g
const REPLACEMENT_BYTES = Buffer.from(ESCAPE)

/**
 * The text of a file name or path that wires, logs and people can carry, whatever bytes it has: UTF-8 as it is, and each byte
 * that is not part of UTF-8 as U+FFFD followed by its two hexadecimal digits (`caf�e9`). Different names give different texts, and
 * `pathBytes` gives the very bytes back; a name that really has U+FFFD before two such digits is escaped too.
 */
export function pathText(raw: Uint8Array): string {
  return textOf(raw, looksEscaped)
}

/**
 * What a client wrote that may use the text form and may also write bytes as they are, such as `%FE` in a URL: UTF-8 stays as it is,
 * escapes among it too, and every other byte becomes one.
 */
export function pathTextFrom(raw: Uint8Array): string {
  return textOf(raw, () => false)
}

type NeedsEscape = (bytes: Buffer, at: number, sequence: Buffer) => boolean

/** @param needsEscape says of a well-formed sequence whether it cannot stay as it is */
function textOf(raw: Uint8Array, needsEscape: NeedsEscape): string {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength)
  const text = bytes.toString('utf8')
  if (!text.includes(ESCAPE)) return text
  let result = ''
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at)
    const sequence = bytes.subarray(at, at + Math.max(1, length))
    result += length === 0 || needsEscape(bytes, at, sequence) ? escaped(sequence) : sequence.toString('utf8')
    at += sequence.length
  }
  return result
}

/** The bytes that the kernel knows a path by, for a text from `pathText` or from anybody who writes plain text. */
export function pathBytes(text: string): Buffer {
  if (!hasEscapes(text)) return Buffer.from(text)
  const pieces: Buffer[] = []
  let end = 0
  for (const match of text.matchAll(ESCAPED_BYTE)) {
    pieces.push(Buffer.from(text.slice(end, match.index)), Buffer.from(match[1] ?? '', 'hex'))
    end = match.index + match[0].length
  }
  pieces.push(Buffer.from(text.slice(end)))
  return Buffer.concat(pieces)
}

/** False for nearly every path: those that may be given to the kernel as the text they are. */
export function hasEscapes(text: string): boolean {
  return text.includes(ESCAPE) && text.search(ESCAPED_BYTE) >= 0
}

function escaped(sequence: Buffer): string {
  return [...sequence].map((byte) => ESCAPE + byte.toString(16).padStart(2, '0')).join('')
}

/** A real U+FFFD before two digits that would be read as an escape. */
function looksEscaped(bytes: Buffer, at: number, sequence: Buffer): boolean {
  if (!sequence.equals(REPLACEMENT_BYTES)) return false
  return /^[89a-f][0-9a-f]$/.test(bytes.toString('latin1', at + 3, at + 5))
}

/** Length of the well-formed UTF-8 sequence at `at`, 0 where there is none (Unicode 15, table 3-7). */
function sequenceLength(bytes: Buffer, at: number): number {
  const first = bytes[at] ?? 0
  if (first < 0x80) return 1
  const length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 ? 4 : 0
  if (length === 0 || first > 0xf4 || !isSecond(first, bytes[at + 1] ?? 0)) return 0
  for (let next = at + 2; next < at + length; next++) if (!isContinuation(bytes[next] ?? 0)) return 0
  return length
}

function isSecond(first: number, second: number): boolean {
  if (first === 0xe0) return second >= 0xa0 && second <= 0xbf
  if (first === 0xed) return second >= 0x80 && second <= 0x9f
  if (first === 0xf0) return second >= 0x90 && second <= 0xbf
  if (first === 0xf4) return second >= 0x80 && second <= 0x8f
  return isContinuation(second)
}

function isContinuation(byte: number): boolean {
  return byte >= 0x80 && byte <= 0xbf
}
