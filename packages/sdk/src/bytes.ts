/** Bytes of a base64 text; available in every runtime, unlike `Buffer` and `Uint8Array.fromBase64`. */
export function fromBase64(text: string): Uint8Array {
  const binary = atob(text)
  const bytes = new Uint8Array(binary.length)
  for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index)
  return bytes
}

const CHUNK = 0x8000

/**
 * Standard base64 with padding (RFC 4648, section 4), the form of every binary field of the API. Built in pieces, because one
 * call of `String.fromCharCode` with millions of arguments overflows the stack.
 */
export function toBase64(bytes: Uint8Array): string {
  let binary = ''
  for (let at = 0; at < bytes.length; at += CHUNK) binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK))
  return btoa(binary)
}

/** Input as it goes to a process or file: text becomes UTF-8, bytes stay the array they are, not a copy. */
export function toBytes(data: string | Uint8Array): Uint8Array {
  return typeof data === 'string' ? new TextEncoder().encode(data) : data
}

/** As they are: a byte order mark stays, what is not UTF-8 becomes U+FFFD. */
export function toText(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
}

const ESCAPED_BYTE = /\ufffd([89a-f][0-9a-f])/

/** The bytes of a path that has some which are not UTF-8, each written as U+FFFD and two hexadecimal digits; else `undefined`. */
export function escapedBytes(path: string): Uint8Array | undefined {
  const pieces = path.split(ESCAPED_BYTE)
  if (pieces.length === 1) return undefined
  // Text and the digits of an escape take turns.
  return Uint8Array.from(
    pieces.flatMap((piece, at) => (at % 2 === 0 ? [...toBytes(piece)] : [Number.parseInt(piece, 16)])),
  )
}

/** `prefix-` and 16 random hex digits. */
export function randomName(prefix: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8))
  return `${prefix}-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`
}
