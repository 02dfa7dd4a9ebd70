const MARK = '\ufeff'

/** Text of a file, and what of its bytes a text field would not keep. */
export interface TextFile {
  /** Without the byte order mark; its lines end in `\n`, unless they end in more ways than one. */
  readonly text: string
  readonly hasMark: boolean
  /** `mixed`: text fields would make them all alike, so it is no text to edit. */
  readonly lineEnd: '\n' | '\r\n' | 'mixed'
}

/**
 * `undefined` for what is no text that a person can read: not UTF-8, or with NUL.
 * @param isCut Its last character may be a part of one, and is left out then.
 */
export function decodeText(bytes: Uint8Array, isCut: boolean): TextFile | undefined {
  if (bytes.includes(0)) return undefined
  let whole: string
  try {
    whole = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: isCut })
  } catch {
    // The decoder's only failure: it is not UTF-8.
    return undefined
  }
  const hasMark = whole.startsWith(MARK)
  const text = hasMark ? whole.slice(1) : whole
  const lineEnd = lineEndOf(text)
  return { text: lineEnd === '\r\n' ? text.replaceAll('\r\n', '\n') : text, hasMark, lineEnd }
}

/** The bytes of a text that was edited, with mark and line ends of the file that it was. */
export function encodeText(text: string, { hasMark, lineEnd }: TextFile): Uint8Array<ArrayBuffer> {
  const lines = lineEnd === '\r\n' ? text.replaceAll('\n', '\r\n') : text
  return new TextEncoder().encode(hasMark ? MARK + lines : lines)
}

function lineEndOf(text: string): TextFile['lineEnd'] {
  const rest = text.replaceAll('\r\n', '')
  if (rest.includes('\r')) return 'mixed'
  if (rest.length === text.length) return '\n'
  return rest.includes('\n') ? 'mixed' : '\r\n'
}
