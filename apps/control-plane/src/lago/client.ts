import { readFile } from 'node:fs/promises'
import { AppError, boundedText, errorText } from '@wrenn/base'
import { bounded, retryAfterMs } from '../notify/index.js'

/** Of events in one call, by Lago's documentation. */
export const LAGO_BATCH = 100
const TIMEOUT_MS = 30_000
/** Of an answer; what is beyond is not read. */
const MAX_ANSWER_BYTES = 1024 * 1024
const MAX_REASON = 300
const BLANK = '***'

/** Where Lago is, and what it knows us by. */
export interface LagoConfig {
  /** Without a slash at its end. */
  readonly url: string
  readonly apiKey: string | undefined
  /** Read at each use, so that a new key needs no restart. */
  readonly apiKeyFile: string | undefined
  /** The first day that is told of; `undefined`: that of the first start with Lago. */
  readonly from: string | undefined
}

/** An event as Lago takes it. */
export interface LagoInput {
  readonly transaction_id: string
  readonly external_subscription_id: string
  readonly code: string
  /** Seconds of the epoch. */
  readonly timestamp: number
  readonly properties: Readonly<Record<string, string>>
}

/** What Lago made of a call: it takes all of it or nothing. */
export type LagoVerdict =
  | { readonly kind: 'taken' }
  /** Nothing, because of these, by their places; `known`: it has had them before. */
  | { readonly kind: 'faulty'; readonly known: readonly number[]; readonly refused: ReadonlyMap<number, string> }
  /** Nothing, because of some that it does not name. */
  | { readonly kind: 'unclear'; readonly reason: string }
  /** Nothing now. */
  | { readonly kind: 'later'; readonly reason: string; readonly isRate: boolean; readonly afterMs: number | undefined }

/** Whether a text can be a key: a header takes no other, and would say so with the key in the message. */
export function isApiKey(text: string): boolean {
  return /^[\x21-\x7e]{1,4096}$/.test(text)
}

/** Sends events to Lago. Redirects are not followed: the key is for nobody else. */
export class LagoClient {
  readonly #config: LagoConfig
  readonly #timeoutMs: number

  constructor(config: LagoConfig, timeoutMs = TIMEOUT_MS) {
    this.#config = config
    this.#timeoutMs = timeoutMs
  }

  /** Never throws for what Lago does or the key is. */
  async send(events: readonly LagoInput[], signal: AbortSignal): Promise<LagoVerdict> {
    let key = ''
    try {
      key = await this.#key()
      const response = await fetch(`${this.#config.url}/api/v1/events/batch`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', accept: 'application/json' },
        body: JSON.stringify({ events }),
        redirect: 'manual',
        signal: AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)]),
      })
      const said = response.body === null ? '' : await boundedText(response.body, MAX_ANSWER_BYTES)
      const verdict = judgeLago(response.status, response.headers, said, events.length)
      return 'reason' in verdict ? { ...verdict, reason: shown(verdict.reason, key) } : blanked(verdict, key)
    } catch (error) {
      return {
        kind: 'later',
        reason: shown(failureText(error, this.#timeoutMs), key),
        isRate: false,
        afterMs: undefined,
      }
    }
  }

  async #key(): Promise<string> {
    const { apiKey, apiKeyFile } = this.#config
    if (apiKeyFile === undefined) return apiKey ?? ''
    const text = await readFile(apiKeyFile, 'utf8').catch((error: unknown) => {
      const message = `The file of WRENN_LAGO_API_KEY_FILE cannot be read: ${errorText(error)}`
      throw new AppError('invalid_config', message, { cause: error })
    })
    const key = text.trim()
    if (!isApiKey(key)) throw new AppError('invalid_config', 'The file of WRENN_LAGO_API_KEY_FILE has no key in it.')
    return key
  }
}

/** What an answer to `count` events means. */
export function judgeLago(status: number, headers: Headers, body: string, count: number): LagoVerdict {
  if (status >= 200 && status < 300) return { kind: 'taken' }
  const fields = objectOf(body)
  const reason = `Lago answered ${status}${saidBy(fields, body)}`
  if ([400, 413, 422].includes(status)) return faultsOf(fields.error_details, count) ?? { kind: 'unclear', reason }
  // Without a word of what was not found it is the address that is wrong.
  if (status === 404 && String(fields.code).endsWith('_not_found')) return { kind: 'unclear', reason }
  const afterMs =
    retryAfterMs({ headers: { 'retry-after': headers.get('retry-after') ?? undefined } }) ?? resetMs(headers)
  const isRate = status === 429 || (status === 503 && afterMs !== undefined)
  return { kind: 'later', reason, isRate, afterMs: isRate ? afterMs : undefined }
}

/** Faults by the places of events; `undefined` where none is named so. */
function faultsOf(details: unknown, count: number): LagoVerdict | undefined {
  if (typeof details !== 'object' || details === null || Array.isArray(details)) return undefined
  const known: number[] = []
  const refused = new Map<number, string>()
  for (const [place, fault] of Object.entries(details)) {
    const index = Number(place)
    if (!/^\d{1,3}$/.test(place) || index >= count) continue
    if (isKnown(fault)) known.push(index)
    else refused.set(index, `Lago refuses it: ${typeof fault === 'string' ? fault : JSON.stringify(fault)}`)
  }
  return known.length + refused.size === 0 ? undefined : { kind: 'faulty', known, refused }
}

/** `{"transaction_id": ["value_already_exist"]}`, and nothing else that is wrong. */
function isKnown(fault: unknown): boolean {
  const [field, ...others] = Object.entries(Object(fault))
  if (field === undefined || others.length > 0) return false
  const [name, codes] = field
  return name === 'transaction_id' && Array.isArray(codes) && codes.length === 1 && codes[0] === 'value_already_exist'
}

/** Seconds, by Lago's documentation of its rate limits. */
function resetMs(headers: Headers): number | undefined {
  const text = headers.get('x-ratelimit-reset') ?? ''
  return /^\d+(?:\.\d+)?$/.test(text) ? bounded(Number(text) * 1000) : undefined
}

function objectOf(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {}
  }
}

function saidBy({ error, code, error_details: details }: Record<string, unknown>, body: string): string {
  const said = [error, code, details === undefined ? undefined : JSON.stringify(details)].filter(
    (part) => typeof part === 'string',
  )
  const text = said.length > 0 ? said.join(', ') : body.replaceAll(/\s+/g, ' ').trim()
  return text === '' ? '.' : `: ${text}`
}

function failureText(error: unknown, timeoutMs: number): string {
  if (error instanceof DOMException && error.name === 'TimeoutError')
    return `Lago did not answer within ${timeoutMs / 1000} s.`
  if (AppError.is(error)) return error.message
  // That of fetch alone is "fetch failed".
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  return `Lago was not reached: ${errorText(cause) || String(Object(cause).code)}`
}

function blanked(verdict: LagoVerdict, key: string): LagoVerdict {
  if (verdict.kind !== 'faulty') return verdict
  return { ...verdict, refused: new Map([...verdict.refused].map(([index, reason]) => [index, shown(reason, key)])) }
}

/** Columns cannot hold NUL, nor half a character. */
function shown(reason: string, key: string): string {
  const text = key === '' ? reason : reason.replaceAll(key, BLANK)
  const cut = text.length > MAX_REASON ? `${text.slice(0, MAX_REASON)}…` : text
  return Buffer.from(cut.replaceAll('\0', '\uFFFD')).toString('utf8')
}
