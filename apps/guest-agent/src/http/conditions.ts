import type { IncomingHttpHeaders } from 'node:http'
import { AppError } from '@wrenn/base'
import type { Validators } from '../files/readable-file.js'

const SECOND_MS = 1_000
/** A second, and room for the tick by which a file's time may be late. */
const OVER_AFTER_MS = 1_500

/**
 * What the conditions of a `GET` or `HEAD` say about the file as it is, in the order of RFC 9110 §13.2.2. A file without an
 * entity tag matches none; conditions that are no dates or tags count as absent. A tag counts however fresh the file is: who names it
 * was told it when it was not, or has it from nowhere.
 * @throws AppError `precondition_failed`
 */
export function evaluateConditions(headers: IncomingHttpHeaders, file: Validators): 'send' | 'not_modified' {
  const { 'if-match': match, 'if-none-match': noneMatch } = headers
  if (match !== undefined) requireCondition(tagsMatch(match, (tag) => tag === file.etag))
  else requireCondition(!isNewerThan(file, headers['if-unmodified-since']))
  if (noneMatch !== undefined) {
    return tagsMatch(noneMatch, (tag) => file.etag !== undefined && opaque(tag) === file.etag) ? 'not_modified' : 'send'
  }
  const since = dateOf(headers['if-modified-since'])
  const isKnown = since !== undefined && file.modifiedMs !== undefined
  return isKnown && !isNewerThan(file, headers['if-modified-since']) ? 'not_modified' : 'send'
}

/** The headers of an upload that say which version of the file it may replace (RFC 9110 §13.1). */
export type WriteConditions = Pick<IncomingHttpHeaders, 'if-match' | 'if-none-match' | 'if-unmodified-since'>

/** Those that a request has; `undefined` when it has none. */
export function writeConditions(headers: IncomingHttpHeaders): WriteConditions | undefined {
  const { 'if-match': match, 'if-none-match': noneMatch, 'if-unmodified-since': since } = headers
  if (match === undefined && noneMatch === undefined && since === undefined) return undefined
  return {
    ...(match === undefined ? {} : { 'if-match': match }),
    ...(noneMatch === undefined ? {} : { 'if-none-match': noneMatch }),
    ...(since === undefined ? {} : { 'if-unmodified-since': since }),
  }
}

/**
 * Whether an upload may replace the file as it is. `file`: `undefined` when there is none.
 * @throws AppError `precondition_failed`
 */
export function requireConditions(conditions: WriteConditions, file: Validators | undefined): void {
  if (file === undefined) requireCondition(conditions['if-match'] === undefined)
  else requireCondition(evaluateConditions(conditions, file) === 'send')
}

/**
 * Whether the bytes that a client already has belong to the file as it is (`If-Range`, RFC 9110 §13.1.5): only by a strong tag
 * that is the same, or by a date that is the same and names a second which is over.
 */
export function rangeApplies(condition: string | undefined, file: Validators, nowMs: number): boolean {
  if (condition === undefined) return true
  const date = dateOf(condition)
  if (date === undefined) return file.etag !== undefined && condition.trim() === file.etag
  return file.modifiedMs !== undefined && wholeSeconds(file.modifiedMs) === date && nowMs - date >= OVER_AFTER_MS
}

function requireCondition(holds: boolean): void {
  if (!holds) throw new AppError('precondition_failed', 'The file is not the version that the request is about.')
}

const entityTag = /(?:W\/)?"[\x21\x23-\x7e\x80-\uffff]*"/g

function tagsMatch(header: string, matches: (tag: string) => boolean): boolean {
  return header.trim() === '*' || (header.match(entityTag) ?? []).some(matches)
}

/** A tag without what marks it as weak. */
function opaque(tag: string): string {
  return tag.replace(/^W\//, '')
}

function isNewerThan(file: Validators, header: string | undefined): boolean {
  const date = dateOf(header)
  return date !== undefined && file.modifiedMs !== undefined && wholeSeconds(file.modifiedMs) > date
}

/** What a `Last-Modified` header can say of a time. */
function wholeSeconds(ms: number): number {
  return Math.floor(ms / SECOND_MS) * SECOND_MS
}

const httpDates = [
  /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/,
  /^[A-Z][a-z]+day, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/,
  /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/,
]

/** Milliseconds of an HTTP date in any of its three forms (RFC 9110 §5.6.7); `undefined` for anything else. */
function dateOf(header: string | undefined): number | undefined {
  const text = header?.trim() ?? ''
  const form = httpDates.findIndex((each) => each.test(text))
  if (form < 0) return undefined
  const ms = Date.parse(form === 2 ? `${text} GMT` : text)
  return Number.isNaN(ms) ? undefined : ms
}
