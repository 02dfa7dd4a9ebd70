/** The little of RFC 1035 that a relay must understand. */
const HEADER_BYTES = 12
const QR = 0x80
const RCODE_MASK = 0x0f
const RCODE_SERVFAIL = 2
const RCODE_REFUSED = 5
/** SERVFAIL, NOTIMP, REFUSED: of this server, not of the name; another one may know. As glibc's resolver takes them. */
const FAILURES: ReadonlySet<number> = new Set([RCODE_SERVFAIL, 4, RCODE_REFUSED])
const MAXIMUM_LABELS = 128
const TYPE_A = 1
const CLASS_IN = 1
/** Of a record behind its name: type, class, time and length. */
const RECORD_HEAD_BYTES = 10
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

/** The IPv4 addresses among an answer's records, whichever of its names they are of; none from what is cut or damaged. */
export function answeredAddresses(answer: Buffer): readonly string[] {
  const addresses: string[] = []
  let offset = answer.length < HEADER_BYTES || answer.readUInt16BE(4) > 1 ? undefined : HEADER_BYTES
  if (offset !== undefined && answer.readUInt16BE(4) === 1) offset = questionEnd(answer)
  for (let left = offset === undefined ? 0 : answer.readUInt16BE(6); left > 0; left -= 1) {
    const head: number | undefined = offset === undefined ? undefined : nameEnd(answer, offset)
    if (head === undefined || head + RECORD_HEAD_BYTES > answer.length) return addresses
    const data = head + RECORD_HEAD_BYTES
    const bytes = answer.readUInt16BE(head + 8)
    const isAddress = answer.readUInt16BE(head) === TYPE_A && answer.readUInt16BE(head + 2) === CLASS_IN && bytes === 4
    if (isAddress && data + bytes <= answer.length) addresses.push(answer.subarray(data, data + bytes).join('.'))
    offset = data + bytes
  }
  return addresses
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

/** Where a record's name ends, which may end in a pointer to another one. */
function nameEnd(message: Buffer, start: number): number | undefined {
  let offset = start
  for (let labels = 0; labels < MAXIMUM_LABELS; labels += 1) {
    const length = message[offset]
    if (length === undefined) return undefined
    if (length >= 0xc0) return offset + 2
    if (length > 63) return undefined
    offset += length + 1
    if (length === 0) return offset
  }
  return undefined
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
