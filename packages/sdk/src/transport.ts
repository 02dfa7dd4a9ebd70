import { CSRF_HEADER, type ErrorBody } from '@wrenn/protocol'
import { createError, WrennError } from './errors.js'
import { PageSession } from './page-session.js'
import type { WebSocketConstructor } from './socket.js'
import { backoffMs, delay } from './wait.js'

const MAX_ATTEMPTS = 4
const DEFAULT_REQUEST_TIMEOUT_MS = 60_000

/** Options of every call. */
export interface CallOptions {
  /** Gives the call up. */
  readonly signal?: AbortSignal
  /** Longest wait for the answer; 0 waits for ever. @default the client's `requestTimeoutMs` */
  readonly requestTimeoutMs?: number
}

/** A key or an access token; or what gives the one to use now, asked before each request and each connection. */
export type ApiKeySource = string | (() => Promise<string | undefined>)

/** The client's options with its defaults filled in. */
export interface TransportOptions {
  /** Slashes at its end are dropped. */
  readonly apiUrl: string
  /** `undefined` sends none, for servers behind a proxy that adds one. */
  readonly apiKey: ApiKeySource | undefined
  readonly fetch: typeof globalThis.fetch
  /** `undefined` where the runtime has none; streams then fail with a hint. */
  readonly webSocket: WebSocketConstructor | undefined
  /** Only for a page whose session is in cookies: called when there is none any more. */
  readonly onSignedOut?: () => void
  /** @default 60_000 */
  readonly requestTimeoutMs?: number
}

/** What one request carries beyond method and path. `json` and `body` exclude each other. */
export interface RequestOptions extends CallOptions {
  /** `undefined` leaves the parameter out. */
  readonly query?: Readonly<Record<string, string | number | undefined>>
  /** Becomes the body; fields that are `undefined` are left out. */
  readonly json?: unknown
  /** Sent as it is. A stream cannot be sent twice, so it must not be `idempotent`. */
  readonly body?: BodyInit
  /** Replace those that the transport sets itself. */
  readonly headers?: Readonly<Record<string, string>>
  /** Doing it twice is the same as once, so a failed attempt may be repeated. @default false for POST, true for the others */
  readonly idempotent?: boolean
  /** It brings what authenticates along: a refusal says nothing of the session. @default false */
  readonly signsIn?: boolean
}

type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** Requests with the key, a deadline, errors that keep their code, and repetition where that is safe. */
export class Transport {
  readonly options: TransportOptions
  /** The session in cookies, where it is there. */
  readonly page: PageSession | undefined
  readonly #base: string

  constructor(options: TransportOptions) {
    this.options = options
    this.#base = options.apiUrl.replace(/\/+$/, '')
    const { onSignedOut } = options
    const refresh = () => this.send('POST', '/v1/auth/refresh', { json: {}, signsIn: true })
    this.page = onSignedOut && new PageSession({ refresh, onSignedOut })
  }

  /** The answer's JSON. The server checks its answers against the schemas these types come from. */
  async json<T>(method: Method, path: string, options: RequestOptions = {}): Promise<T> {
    const response = await this.request(method, path, options)
    const body: T = await response.json()
    return body
  }

  /** For calls without an answer; reads it to its end so that the connection can be used again. */
  async send(method: Method, path: string, options: RequestOptions = {}): Promise<Response> {
    const response = await this.request(method, path, options)
    await response.arrayBuffer()
    return response
  }

  /**
   * An answer of 2xx, its body unread. A page whose cookie has expired gets the next one and asks again. A failure that is `isRetryable` is tried up to three times more when the request is
   * idempotent, after `Retry-After` (at most 30 s) or a growing wait; a deadline that passed is not.
   * @throws WrennError of the class its code has; `options.signal`'s reason
   */
  async request(method: Method, path: string, options: RequestOptions = {}): Promise<Response> {
    const page = options.signsIn === true ? undefined : this.page
    if (page === undefined) return await this.#persist(method, path, options)
    if (options.body instanceof ReadableStream) {
      await page.makeFresh()
      return await this.#persist(method, path, options)
    }
    const askedAt = Date.now()
    try {
      return await this.#persist(method, path, options)
    } catch (error) {
      if (!(error instanceof WrennError && error.status === 401 && error.code === 'unauthorized')) throw error
    }
    await page.renew(askedAt)
    return await this.#persist(method, path, options)
  }

  async #persist(method: Method, path: string, options: RequestOptions): Promise<Response> {
    const idempotent = options.idempotent ?? method !== 'POST'
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#attempt(method, path, options)
      } catch (error) {
        const again = error instanceof WrennError && error.isRetryable && idempotent && attempt + 1 < MAX_ATTEMPTS
        // A deadline that passed once would only pass again.
        if (!again || error.code === 'timeout') throw error
        await delay(retryAfterMs(error) ?? backoffMs(attempt), options.signal)
      }
    }
  }

  /**
   * What the next request or connection goes with, without the white space around it that files and pastes bring.
   * @throws WrennError `unauthorized` for what no key can be; what the client's own source of keys throws
   */
  async apiKey(): Promise<string | undefined> {
    const { apiKey } = this.options
    const key = (typeof apiKey === 'function' ? await apiKey() : apiKey)?.trim()
    // A header could not carry it, which looks like a server that does not answer.
    if (key !== undefined && !/^[\x21-\x7e]*$/.test(key)) throw noKey(key)
    return key
  }

  /** The URL of a WebSocket route. */
  socketUrl(path: string, query: RequestOptions['query'] = {}): string {
    return this.url(path, query).replace(/^http/, 'ws')
  }

  /** The URL of a route. */
  url(path: string, query: RequestOptions['query'] = {}): string {
    const url = new URL(`${this.#base}${path}`)
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value))
    return url.href
  }

  async #attempt(method: Method, path: string, options: RequestOptions): Promise<Response> {
    const apiKey = await this.apiKey()
    const timeoutMs = options.requestTimeoutMs ?? this.options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS
    const deadline = new AbortController()
    const timer = timeoutMs > 0 ? setTimeout(() => deadline.abort(), timeoutMs) : undefined
    const signals = options.signal ? [deadline.signal, options.signal] : [deadline.signal]
    try {
      const response = await this.options.fetch(this.url(path, options.query), {
        method,
        headers: this.#headers(options, apiKey),
        signal: AbortSignal.any(signals),
        ...(this.page === undefined ? {} : { credentials: 'same-origin' }),
        ...bodyOf(options),
      })
      if (response.ok) return response
      throw await errorOf(response)
    } catch (error) {
      if (error instanceof WrennError || options.signal?.aborted) throw error
      if (deadline.signal.aborted) throw lateError(timeoutMs)
      throw unreachable(this.#base, error)
    } finally {
      clearTimeout(timer)
    }
  }

  #headers(options: RequestOptions, apiKey: string | undefined): Record<string, string> {
    return {
      ...(apiKey ? { 'X-API-Key': apiKey } : {}),
      ...(this.page === undefined ? {} : { [CSRF_HEADER]: '1' }),
      ...(options.json === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...options.headers,
    }
  }
}

function bodyOf(options: RequestOptions): RequestInit & { duplex?: 'half' } {
  if (options.json !== undefined) return { body: JSON.stringify(options.json) }
  if (options.body === undefined) return {}
  if (!(options.body instanceof ReadableStream)) return { body: options.body }
  // Fetch sends a stream only when told that the answer comes after it, and to follow a redirect Node.js would keep it whole.
  return { body: options.body, duplex: 'half', redirect: 'error' }
}

/** Without the key, which is for no log. */
function noKey(key: string): WrennError {
  const what = /[\r\n]/.test(key) ? 'a line break' : /\s/.test(key) ? 'a space' : 'a character that no key has'
  return createError(`The API key has ${what} in it.`, {
    code: 'unauthorized',
    hint: 'Set the key alone, as it was shown when it was made: nothing before it, after it or in between.',
  })
}

function retryAfterMs(error: WrennError): number | undefined {
  const seconds = error.details?.retryAfterSec
  return typeof seconds === 'number' ? Math.min(seconds * 1000, 30_000) : undefined
}

function isErrorBody(body: unknown): body is ErrorBody {
  if (typeof body !== 'object' || body === null || !('error' in body)) return false
  const { error } = body
  return typeof error === 'object' && error !== null && 'code' in error && 'message' in error
}

async function errorOf(response: Response): Promise<WrennError> {
  const text = await response.text()
  const status = response.status
  const retryAfterSec = Number(response.headers.get('retry-after') ?? Number.NaN)
  const wait = Number.isFinite(retryAfterSec) ? { retryAfterSec } : {}
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    // Not our server's words: a proxy in between, perhaps.
  }
  if (!isErrorBody(body)) {
    const code =
      status === 404 ? 'not_found' : status === 401 ? 'unauthorized' : status >= 500 ? 'host_unavailable' : 'internal'
    return createError(`The server answered ${status} ${response.statusText}.`, { code, status, details: wait })
  }
  const { code, message, hint, details, requestId } = body.error
  return createError(message, {
    code,
    status,
    details: { ...details, ...wait },
    ...(hint ? { hint } : {}),
    ...(requestId ? { requestId } : {}),
  })
}

function lateError(timeoutMs: number): WrennError {
  return createError(`No answer within ${timeoutMs} ms (requestTimeoutMs).`, { code: 'timeout' })
}

/**
 * The error for a request that got no answer at all: refused, no such name, TLS, or CORS, which browsers do not tell apart.
 */
export function unreachable(apiUrl: string, cause: unknown): WrennError {
  return createError(`No Wrenn server answers at ${apiUrl}.`, {
    code: 'connection_failed',
    hint: 'Check the API URL, and that the platform runs.',
    cause,
  })
}
