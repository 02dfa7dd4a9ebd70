import { Agent as HttpAgent, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { AppError, boundedText, errorText, isErrno } from '@wrenn/base'
import type { ChannelProvider } from '@wrenn/protocol'
import { AddressRule, type Allowed } from './address-rule.js'
import { Guard, type Resolve } from './guard.js'
import type { Answer, ChannelConfig, Message, OutgoingRequest, Verdict } from './provider.js'
import { providers } from './providers/index.js'

/** From the look-up of the name to the end of the answer. */
const TIMEOUT_MS = 10_000
/** Below what servers allow an unused connection, which is 5 s with many. */
const IDLE_MS = 4_000
/** Of an answer; what is beyond is not waited for. */
const MAX_ANSWER_BYTES = 64 * 1024
const MAX_SHOWN_BODY_BYTES = 4 * 1024
const MAX_SHOWN_ANSWER_BYTES = 2 * 1024
const MAX_REASON = 500
const USER_AGENT = 'Wrenn-Channels/1'
const BLANK = '***'

/** What an attempt was and came to; nothing secret in it. */
export interface Sent {
  readonly verdict: Verdict
  readonly request: {
    readonly method: string
    readonly url: string
    readonly headers: Record<string, string>
    readonly body: string
  }
  /** `undefined`: none came. */
  readonly answer: { readonly status: number; readonly body: string } | undefined
  readonly durationMs: number
  /** Why nothing was sent: channels may not. */
  readonly refusal: AppError | undefined
}

/** What a sender may reach. */
export interface SenderOptions {
  readonly allowed: Allowed
  /** @default 10 000 */
  readonly timeoutMs?: number
  /** @default name servers */
  readonly resolve?: Resolve
  /** @default those of this machine */
  readonly ownAddresses?: () => readonly string[]
}

/** Sends messages to targets, and to nothing but what channels may reach. Redirects are not followed. */
export class Sender {
  readonly guard: Guard
  readonly #timeoutMs: number
  readonly #agents = {
    'http:': new HttpAgent({ keepAlive: true, timeout: IDLE_MS }),
    'https:': new HttpsAgent({ keepAlive: true, timeout: IDLE_MS }),
  }

  constructor({ allowed, timeoutMs = TIMEOUT_MS, resolve, ownAddresses }: SenderOptions) {
    this.guard = new Guard(new AddressRule(allowed, ownAddresses), resolve)
    this.#timeoutMs = timeoutMs
  }

  /** Never throws for what a target does. */
  async send(provider: ChannelProvider, config: ChannelConfig, message: Message): Promise<Sent> {
    const target = providers[provider]
    const request = target.request(config, message, new Date())
    const blank = blanker(target.secrets(config))
    // Half a secret would not be found any more.
    const reasonOf = (text: string): string => storable(blank(storable(text)).slice(0, MAX_REASON))
    const shown = shownRequest(request, blank)
    const since = performance.now()
    const durationMs = (): number => Math.round(performance.now() - since)
    try {
      const answer = await this.#exchange(request)
      const verdict = target.judge(answer)
      const body = cut(blank(storable(answer.body)), MAX_SHOWN_ANSWER_BYTES)
      return {
        verdict: 'reason' in verdict ? { ...verdict, reason: reasonOf(verdict.reason) } : verdict,
        request: shown,
        answer: { status: answer.status, body },
        durationMs: durationMs(),
        refusal: undefined,
      }
    } catch (error) {
      const verdict = { kind: 'later', reason: reasonOf(errorText(error)), isRate: false } as const
      const refusal = AppError.is(error, 'target_refused') ? error : undefined
      return { verdict, request: shown, answer: undefined, durationMs: durationMs(), refusal }
    }
  }

  /** Ends connections that nobody uses. */
  close(): void {
    for (const agent of Object.values(this.#agents)) agent.destroy()
  }

  async #exchange(request: OutgoingRequest): Promise<Answer> {
    const signal = AbortSignal.timeout(this.#timeoutMs)
    try {
      return await this.#once(request, signal)
    } catch (error) {
      if (error instanceof StaleConnection) return await this.#once(request, signal)
      throw signal.aborted
        ? new AppError('timeout', `The target did not answer within ${this.#timeoutMs / 1000} s.`)
        : error
    }
  }

  async #once({ method, url, headers, body }: OutgoingRequest, signal: AbortSignal): Promise<Answer> {
    // Numbers are not looked up, so nobody else would judge them.
    this.guard.check(url)
    const isPlain = url.protocol !== 'https:'
    const bytes = Buffer.from(body)
    const options = {
      method,
      signal,
      lookup: this.guard.lookup(isPlain),
      headers: { ...headers, 'user-agent': USER_AGENT, accept: '*/*', 'content-length': bytes.length },
    }
    let abort: () => void = () => {}
    try {
      return await new Promise<Answer>((resolve, reject) => {
        const asked = isPlain
          ? requestHttp(url, { ...options, agent: this.#agents['http:'] })
          : requestHttps(url, { ...options, agent: this.#agents['https:'] })
        // A request that is over says nothing of an abort any more.
        abort = () => reject(signal.reason)
        signal.addEventListener('abort', abort)
        asked.on('error', (error) =>
          reject(asked.reusedSocket && isErrno(error, 'ECONNRESET', 'EPIPE') ? new StaleConnection() : error),
        )
        asked.on('upgrade', (_response, socket) => {
          socket.destroy()
          reject(noAnswer('The target answered 101 and spoke another protocol.'))
        })
        let isAnswered = false
        asked.on('response', (response) => {
          isAnswered = true
          boundedText(response, MAX_ANSWER_BYTES).then(
            (text) => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
            reject,
          )
        })
        asked.on('close', () => {
          if (!isAnswered) reject(noAnswer('The target ended the connection without an answer.'))
        })
        asked.end(bytes)
      })
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}

/** The other side had ended a connection that was kept, before it had the request. */
class StaleConnection extends Error {}

function noAnswer(message: string): AppError {
  return new AppError('channel_test_failed', message)
}

function shownRequest(
  { method, shownUrl, headers, body }: OutgoingRequest,
  blank: (text: string) => string,
): Sent['request'] {
  const secret = /^(?:authorization|.*signature)$/
  const shown = Object.entries(headers).map(([name, value]) => [name, secret.test(name) ? BLANK : blank(value)])
  return {
    method,
    url: blank(shownUrl),
    headers: Object.fromEntries(shown),
    body: cut(blank(storable(body)), MAX_SHOWN_BODY_BYTES),
  }
}

/** Also in the form that they have in URLs and in JSON. */
function blanker(secrets: readonly string[]): (text: string) => string {
  const forms = secrets.flatMap((secret) => [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)])
  const all = [...new Set(forms)].filter((form) => form !== '').sort((one, other) => other.length - one.length)
  return (text) => all.reduce((sum, form) => sum.replaceAll(form, BLANK), text)
}

function cut(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text)
  return bytes.length <= maxBytes ? text : `${bytes.subarray(0, maxBytes).toString('utf8')}…`
}

/** Columns cannot hold NUL, nor half a character. */
function storable(text: string): string {
  return Buffer.from(text.replaceAll('\0', '\uFFFD')).toString('utf8')
}
