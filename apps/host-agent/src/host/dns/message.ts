/** The little of RFC 1035 that a relay must understand. */
const HEADER_BYTES = 12
const QR = 0x80
const RCODE_MASK = 0x0f
const RCODE_SERVFAIL = 2
const RCODE_REFUSED = 5
/** SERVFAIL, NOTIMP, REFUSED: of this server, not of the name; another one may know. As glibc's resolver takes them. */
const FAILURES: ReadonlySet<number> = new Set([RCODE_SERVFAIL, 4, RCODE_REFUSED])
const MAXIMUM_LABELS = 128
/** A name of 255 bytes and every option of EDNS that resolvers send fit; what is longer is no look-up. */
export const MAXIMUM_QUERY_BYTES = 1500

/** A look-up as far as a relay must understand it. */
export interface Query {
  /** The client's; toward servers each attempt has a random one of its own. */
  readonly id: number
  /** Header and first question, without other sections. */
  readonly question: Buffer
}

/** Reads a query with exactly one question; `undefined` for anything else, responses and what is too long included. */
export function parseQuery(message: Buffer): Query | undefined {
  if (
    message.length < HEADER_BYTES ||
    message.length > MAXIMUM_QUERY_BYTES ||
    isResponse(message) ||
    message.readUInt16BE(4) !== 1
  )
    return undefined
  const end = questionEnd(message)
  if (end === undefined) return undefined
  return { id: message.readUInt16BE(0), question: message.subarray(HEADER_BYTES, end) }
}

/** The name that is asked for, in lower case; the root is empty. Bytes that no name of a host has are kept as they are. */
export function questionName({ question }: Query): string {
  const labels: string[] = []
  let offset = 0
  for (let length = question[0] ?? 0; length > 0; length = question[offset] ?? 0) {
    labels.push(question.toString('latin1', offset + 1, offset + 1 + length))
    offset += length + 1
  }
  return labels.join('.').toLowerCase()
}

/** Whether `message` is an answer to `query` sent under `id`: what else arrives on the port is noise or forgery. */
export function isAnswerTo(message: Buffer, query: Query, id: number): boolean {
  if (message.length < HEADER_BYTES || !isResponse(message) || message.readUInt16BE(0) !== id) return false
  // Some servers leave the question out of an error.
  if (message.readUInt16BE(4) === 0) return true
  const end = questionEnd(message)
  return end !== undefined && sameQuestion(message.subarray(HEADER_BYTES, end), query.question)
}

/** Whether an answer says no more than that this server has none. */
export function isFailure(answer: Buffer): boolean {
  return FAILURES.has(answer.readUInt8(3) & RCODE_MASK)
}

/** A copy under another id; the bytes may still be needed under the old one. */
export function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message)
  copy.writeUInt16BE(id, 0)
  return copy
}

/** SERVFAIL to the query in `message`. */
export function serverFailure(message: Buffer, query: Query): Buffer {
  return failure(message, query, RCODE_SERVFAIL)
}

/** REFUSED to the query in `message`. */
export function refusal(message: Buffer, query: Query): Buffer {
  return failure(message, query, RCODE_REFUSED)
}

function failure(message: Buffer, query: Query, rcode: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  message.copy(header, 0, 0, 4)
  const [flags = 0, more = 0] = header.subarray(2, 4)
  header.writeUInt8((flags & 0x79) | QR, 2)
  header.writeUInt8((more & 0xf0) | 0x80 | rcode, 3)
  header.writeUInt16BE(1, 4)
  return Buffer.concat([header, query.question])
}

function isResponse(message: Buffer): boolean {
  return (message.readUInt8(2) & QR) !== 0
}

/** Names compare without case; a resolver may answer in another. Type and class bytes are not letters that matter here. */
function sameQuestion(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && a.toString('latin1').toLowerCase() === b.toString('latin1').toLowerCase()
}

/** Where the first question ends; questions carry no compression pointers. */
function questionEnd(message: Buffer): number | undefined {
  let offset = HEADER_BYTES
  for (let labels = 0; labels < MAXIMUM_LABELS; labels += 1) {
    const length = message[offset]
    if (length === undefined || length > 63) return undefined
    offset += length + 1
    if (length === 0) return offset + 4 <= message.length ? offset + 4 : undefined
  }
  return undefined
}
