import { WEBHOOK_SECRET_PREFIX, type WebhookEvent as WireEvent } from '@wrenn/protocol'
import { fromBase64, toBytes, toText } from './bytes.js'
import { createError } from './errors.js'

const TOLERANCE_MS = 5 * 60_000

/** What a channel tells a webhook. */
export interface WebhookEvent {
  /** The same with each attempt: what came before under it can be left out. */
  readonly id: string
  /** Type of the event, or `channel.test`. */
  readonly event: string
  /** Of the event. */
  readonly at: Date
  readonly teamId: string
  readonly resource: { readonly type: string; readonly id: string }
  /** A little of the resource, such as its name and state. */
  readonly data: Readonly<Record<string, unknown>>
}

/** A request as a server has it: what `fetch`, Node.js and most frameworks call headers, and the body as it came. */
export interface WebhookRequest {
  readonly headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>
  /** Not parsed and not written anew: another byte is another signature. */
  readonly body: string | Uint8Array
}

/** How a webhook is verified. */
export interface VerifyWebhookOptions {
  /** How far its time may be from this machine's, in both directions. @default 300_000 */
  readonly toleranceMs?: number
  /** @default now */
  readonly now?: Date
}

/**
 * Whether a request is of a channel: by the headers of Standard Webhooks, or by `X-WRENN-SIGNATURE` where only that came through.
 * @param secrets what the channel was made with; several while one is replaced
 * @throws WrennError `webhook_invalid`: answer 400, and do nothing
 * @example
 * const event = await verifyWebhook({ headers: request.headers, body: await request.text() }, secret)
 */
export async function verifyWebhook(
  { headers, body }: WebhookRequest,
  secrets: string | readonly string[],
  { toleranceMs = TOLERANCE_MS, now = new Date() }: VerifyWebhookOptions = {},
): Promise<WebhookEvent> {
  const header = (name: string): string | undefined => headerOf(headers, name)
  const signed = standardForm(header) ?? ownForm(header)
  if (signed === undefined) throw invalid('It has no signature.')
  if (!(Math.abs(now.getTime() - signed.at) <= toleranceMs)) {
    throw invalid(`Its time is more than ${toleranceMs / 1000} s from this machine's.`)
  }
  const text = concat(toBytes(signed.prefix), toBytes(body))
  for (const secret of typeof secrets === 'string' ? [secrets] : secrets) {
    const key = await importKey(signed.keyOf(secret))
    for (const signature of signed.signatures) {
      if (await crypto.subtle.verify('HMAC', key, signature, text)) return eventOf(body)
    }
  }
  throw invalid('Its signature is of another secret, or of another body.')
}

/** What a signature is over, and by. */
interface Signed {
  readonly at: number
  /** Before the body. */
  readonly prefix: string
  readonly signatures: readonly Bytes[]
  readonly keyOf: (secret: string) => Bytes
}
/** As WebCrypto takes them. */
type Bytes = Uint8Array<ArrayBuffer>
type Header = (name: string) => string | undefined

/** https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md */
function standardForm(header: Header): Signed | undefined {
  const [id, time, signature] = [header('webhook-id'), header('webhook-timestamp'), header('webhook-signature')]
  if (id === undefined || time === undefined || signature === undefined) return undefined
  const all = signature.split(' ').filter((each) => each.startsWith('v1,'))
  return {
    at: /^\d{1,12}$/.test(time) ? Number(time) * 1000 : Number.NaN,
    prefix: `${id}.${time}.`,
    signatures: all.map((each) => decode(each.slice(3))).filter((bytes) => bytes !== undefined),
    keyOf: (secret) => {
      const key = secret.startsWith(WEBHOOK_SECRET_PREFIX)
        ? decode(secret.slice(WEBHOOK_SECRET_PREFIX.length))
        : undefined
      if (key === undefined || key.length === 0)
        throw invalid(`The secret must be ${WEBHOOK_SECRET_PREFIX} and base64.`)
      return key
    },
  }
}

function ownForm(header: Header): Signed | undefined {
  const [time, signature] = [header('x-wrenn-timestamp'), header('x-wrenn-signature')]
  const [, hex] = /^sha256=((?:[0-9a-f]{2}){32})$/.exec(signature ?? '') ?? []
  if (time === undefined || hex === undefined) return undefined
  const bytes = hex.match(/../g) ?? []
  return {
    at: Date.parse(time),
    prefix: `${time}.`,
    signatures: [copy(Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 16)))],
    keyOf: (secret) => copy(toBytes(secret)),
  }
}

async function importKey(bytes: Bytes): Promise<CryptoKey> {
  return await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])
}

function headerOf(headers: WebhookRequest['headers'], name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined
  const [, value] = Object.entries(headers).find(([each]) => each.toLowerCase() === name) ?? []
  return typeof value === 'string' || value === undefined ? value : value[0]
}

function decode(text: string): Bytes | undefined {
  return /^[A-Za-z0-9+/]+={0,2}$/.test(text) && text.length % 4 !== 1 ? copy(fromBase64(text)) : undefined
}

function concat(one: Uint8Array, other: Uint8Array): Bytes {
  const all = new Uint8Array(one.length + other.length)
  all.set(one)
  all.set(other, one.length)
  return all
}

function copy(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes)
}

function eventOf(body: string | Uint8Array): WebhookEvent {
  const event: WireEvent = JSON.parse(typeof body === 'string' ? body : toText(body))
  const { id, event: type, timestamp, team_id: teamId, resource, data } = event
  return { id, event: type, at: new Date(timestamp), teamId, resource, data }
}

function invalid(message: string) {
  return createError(`This is no request of a channel: ${message}`, { code: 'webhook_invalid' })
}
