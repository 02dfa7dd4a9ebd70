/** As Node bounds heads that it reads itself. */
export const MAX_HEAD_BYTES = 16 * 1024

export const HEAD_END = '\r\n\r\n'
export const LINE_END_BYTES = 2

/** What the head of every answer has. */
export interface AnswerStart {
  readonly status: number
  readonly message: string
  /** Names and values in turn, as they came. */
  readonly rawHeaders: string[]
}

/** The head of a service's answer. */
export interface AnswerHead extends AnswerStart {
  /** What follows it: so many bytes, or chunks. */
  readonly body: number | 'chunked'
  /** Whether the connection is there for another request after it. */
  readonly isKept: boolean
}

// Without parts that could share characters: a service may send anything, and reading it takes time in proportion to its length.
const INTERIM = /HTTP\/1\.1 (1\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n/y
const STATUS = /HTTP\/1\.1 ([2-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n/y
const FIELD = /([!#$%&'*+.^_`|~\dA-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)\r\n/y
const LENGTH = /^\d{1,15}$/
/** A service that says it keeps connections for less might end one while a request is on its way. */
const KEPT_AT_LEAST_SEC = 2

/**
 * Reads a final answer's head of HTTP/1.1 whose body has an end of its own, as nearly all have.
 * @param text the head up to the empty line, each line with its end
 * @returns `undefined` for every other: interim and older answers, bodies that end with the connection, and what is no HTTP
 */
export function readAnswerHead(text: string, method: string | undefined): AnswerHead | undefined {
  const start = readStart(STATUS, text)
  if (start === undefined) return undefined
  const { status } = start
  const framing = framingOf(start.rawHeaders)
  if (framing === undefined) return undefined
  const isBodiless = method === 'HEAD' || status === 204 || status === 304
  const body = isBodiless ? 0 : framing.body
  return body === undefined ? undefined : { ...start, body, isKept: framing.isKept }
}

/** Reads the head of an interim answer (1xx) of HTTP/1.1. @param text as for {@link readAnswerHead}; `undefined` for every other */
export function readInterimHead(text: string): AnswerStart | undefined {
  return readStart(INTERIM, text)
}

function readStart(line: RegExp, text: string): AnswerStart | undefined {
  line.lastIndex = 0
  const first = line.exec(text)
  const rawHeaders = first === null ? undefined : readFields(text, first[0].length)
  if (first === null || rawHeaders === undefined) return undefined
  return { status: Number(first[1]), message: first[2] ?? '', rawHeaders }
}

/** Whether more may make it a head. One whose lines end in another way never has the end that is looked for. @param newBytes at its end */
export function isBeginningOfHead(seen: Buffer, newBytes: number): boolean {
  if (seen.length > MAX_HEAD_BYTES || seen.toString('latin1', 0, 5) !== 'HTTP/'.slice(0, seen.length)) return false
  return !/[^\r]\n/.test(seen.toString('latin1', Math.max(0, seen.length - newBytes - 1)))
}

/** Names and values in turn of lines that are all header fields; `undefined` when one is none. */
export function readFields(text: string, from = 0): string[] | undefined {
  const fields: string[] = []
  for (let at = from; at < text.length; at = FIELD.lastIndex) {
    FIELD.lastIndex = at
    const field = FIELD.exec(text)
    if (field === null) return undefined
    fields.push(field[1] ?? '', trimmed(field[2] ?? ''))
  }
  return fields
}

interface Framing {
  readonly body: number | 'chunked' | undefined
  readonly isKept: boolean
}

/** @returns `undefined` where two readers could find different ends */
function framingOf(rawHeaders: readonly string[]): Framing | undefined {
  let body: number | 'chunked' | undefined
  let isKept = true
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name = '', value = ''] = [rawHeaders[at], rawHeaders[at + 1]]
    // Of these lengths alone are names that matter here.
    if (name.length !== 10 && name.length !== 14 && name.length !== 17) continue
    const lower = name.toLowerCase()
    if (lower === 'content-length') {
      if (body !== undefined || !LENGTH.test(value)) return undefined
      body = Number(value)
    } else if (lower === 'transfer-encoding') {
      if (body !== undefined || value.toLowerCase() !== 'chunked') return undefined
      body = 'chunked'
    } else if (lower === 'connection') isKept &&= !/\b(?:close|upgrade)\b/i.test(value)
    else if (lower === 'keep-alive')
      isKept &&= Number(/\btimeout=(\d+)/i.exec(value)?.[1] ?? KEPT_AT_LEAST_SEC) >= KEPT_AT_LEAST_SEC
  }
  return { body, isKept }
}

/** Without the white space of HTTP around it, which is less than that of JavaScript. */
function trimmed(value: string): string {
  let [start, end] = [0, value.length]
  while (start < end && isSpace(value.charCodeAt(start))) start++
  while (end > start && isSpace(value.charCodeAt(end - 1))) end--
  return value.slice(start, end)
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09
}
