import { parseHostName } from '@wrenn/base'

const RECORD_HEADER_BYTES = 5
const HANDSHAKE_HEADER_BYTES = 4
/** RFC 8446 §5.1: 2^14, a plain record's limit. */
const MAXIMUM_RECORD_BYTES = 16_384
/** A hello comes in one record, or a few; each is looked at again when the next arrives. */
const MAXIMUM_RECORDS = 64
const HANDSHAKE = 22
const CLIENT_HELLO = 1
const SERVER_NAME = 0
const HOST_NAME = 0

/** The first byte of a TLS connection. */
export const TLS_FIRST_BYTE = HANDSHAKE

/** What the beginning of a connection says. `more`: nothing yet; it is of no use to look again before so many bytes are there. */
export type Sighting =
  | { readonly seen: 'name'; readonly name: string }
  | { readonly seen: 'nothing' }
  | { readonly seen: 'more'; readonly atLeastBytes: number }

const nothing: Sighting = { seen: 'nothing' }

/**
 * The server's name in the ClientHello that a TLS connection begins with (RFC 8446 §4.1.2, RFC 6066 §3). With an encrypted
 * hello it is the outer one's. A hello may be cut into records anywhere, and into segments anywhere.
 * @param bytes all that has come so far
 */
export function readClientHello(bytes: Buffer): Sighting {
  const pieces: Buffer[] = []
  let [offset, gathered] = [0, 0]
  for (let records = 0; records < MAXIMUM_RECORDS; records += 1) {
    const record = readRecord(bytes, offset)
    if (!Buffer.isBuffer(record)) return record
    pieces.push(record)
    gathered += record.length
    offset += RECORD_HEADER_BYTES + record.length
    const hello = gathered < HANDSHAKE_HEADER_BYTES ? undefined : wholeHello(Buffer.concat(pieces))
    if (hello !== undefined) return hello
  }
  return nothing
}

function readRecord(bytes: Buffer, offset: number): Buffer | Sighting {
  const start = offset + RECORD_HEADER_BYTES
  if (bytes.length < start) return { seen: 'more', atLeastBytes: start }
  const length = bytes.readUInt16BE(offset + 3)
  const isHandshake = bytes[offset] === HANDSHAKE && bytes[offset + 1] === 3
  if (!isHandshake || length === 0 || length > MAXIMUM_RECORD_BYTES) return nothing
  const end = start + length
  return bytes.length < end ? { seen: 'more', atLeastBytes: end } : bytes.subarray(start, end)
}

/** `undefined` while a part of it is missing. */
function wholeHello(message: Buffer): Sighting | undefined {
  if (message[0] !== CLIENT_HELLO) return nothing
  const end = HANDSHAKE_HEADER_BYTES + message.readUIntBE(1, 3)
  if (message.length < end) return undefined
  try {
    const name = serverName(new Reader(message.subarray(HANDSHAKE_HEADER_BYTES, end)))
    return name === undefined ? nothing : { seen: 'name', name }
  } catch (error) {
    if (error instanceof RangeError) return nothing // shorter than it says
    throw error
  }
}

/** @throws RangeError for what is cut off */
function serverName(hello: Reader): string | undefined {
  hello.bytes(2 + 32) // version, random
  hello.vector(1) // session id
  hello.vector(2) // cipher suites
  hello.vector(1) // compression methods
  const extensions = hello.vector(2)
  const names: Buffer[] = []
  while (!extensions.isAtEnd) {
    const type = extensions.number(2)
    const data = extensions.vector(2)
    if (type !== SERVER_NAME) continue
    const list = data.vector(2)
    while (!list.isAtEnd) {
      const kind = list.number(1)
      const name = list.vector(2)
      if (kind !== HOST_NAME) return undefined
      names.push(name.rest)
    }
  }
  const [name] = names
  // Of two, servers differ in which one they take.
  return names.length === 1 && name !== undefined ? parseHostName(name.toString('latin1')) : undefined
}

/** Reads TLS's numbers and length-prefixed vectors. Each step throws RangeError beyond the end. */
class Reader {
  #offset = 0

  constructor(private readonly source: Buffer) {}

  get isAtEnd(): boolean {
    return this.#offset === this.source.length
  }

  get rest(): Buffer {
    return this.source.subarray(this.#offset)
  }

  bytes(count: number): Buffer {
    const end = this.#offset + count
    if (end > this.source.length) throw new RangeError('cut off')
    const taken = this.source.subarray(this.#offset, end)
    this.#offset = end
    return taken
  }

  number(size: number): number {
    return this.bytes(size).readUIntBE(0, size)
  }

  vector(lengthSize: number): Reader {
    return new Reader(this.bytes(this.number(lengthSize)))
  }
}
