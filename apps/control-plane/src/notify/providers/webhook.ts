import { createHmac, randomBytes } from 'node:crypto'
import { WEBHOOK_SECRET_PREFIX } from '@wrenn/protocol'
import { z } from 'zod'
import { readFields, readUrl } from '../fields.js'
import { judge } from '../judge.js'
import type { ChannelConfig, Provider } from '../provider.js'

const MIN_SECRET_BYTES = 24
const MAX_SECRET_BYTES = 64
/** Of what may be a secret in a URL; shorter texts are everywhere. */
const MIN_SECRET_TEXT = 8

const secret = z.string().refine(isSecret, `must be ${WEBHOOK_SECRET_PREFIX} and base64 of 24 to 64 bytes`)

/** HTTP requests with the event as JSON, signed. Names of headers and what is signed: Standard Webhooks 1.0.0, and our own. */
export const webhook: Provider = {
  concurrency: 4,
  parse(config, guard) {
    const fields = readFields({ url: z.string(), secret: secret.optional() }, config)
    return { url: readUrl('url', fields.url, guard).href, secret: fields.secret ?? newWebhookSecret() }
  },
  target: ({ url = '' }) => new URL(url).host,
  secrets: ({ url = '', secret = '', previous_secret }) => {
    const { pathname, search, searchParams } = new URL(url)
    const segments = pathname.split('/')
    const written = search
      .slice(1)
      .split('&')
      .map((pair) => pair.slice(pair.indexOf('=') + 1))
    const parts = [...segments, ...segments.map(decoded), ...written, ...searchParams.values()]
    return [secret, previous_secret ?? '', pathname, search, ...parts].filter((text) => text.length >= MIN_SECRET_TEXT)
  },
  request(config, message, at) {
    const url = new URL(config.url ?? '')
    const body = JSON.stringify(message)
    return {
      method: 'POST',
      url,
      shownUrl: `${url.origin}/***`,
      headers: { 'content-type': 'application/json', ...signatures(secretsOf(config, at), message.id, body, at) },
      body,
    }
  },
  // What a server says of the request itself; all else may pass.
  judge: (answer) => judge(answer, { refused: [400, 413, 415, 422], gone: [410] }),
}

/** With a new secret; what it was signed with until now does for `forMs` more. */
export function rotateSecret(
  config: ChannelConfig,
  forMs: number,
): { readonly config: ChannelConfig; readonly until: Date } {
  const { url = '', secret: before = '' } = config
  const until = new Date(Date.now() + forMs)
  const kept = { url, secret: newWebhookSecret(), previous_secret: before, previous_until: until.toISOString() }
  return { config: kept, until }
}

/** 256 random bits. */
function newWebhookSecret(): string {
  return WEBHOOK_SECRET_PREFIX + randomBytes(32).toString('base64')
}

/** The one that counts, and for a while the one before. */
function secretsOf(
  { secret = '', previous_secret, previous_until }: Readonly<Record<string, string>>,
  at: Date,
): string[] {
  const isOver = previous_until === undefined || new Date(previous_until) <= at
  return [secret, ...(isOver || previous_secret === undefined ? [] : [previous_secret])]
}

function signatures(secrets: readonly string[], id: string, body: string, at: Date): Record<string, string> {
  const seconds = String(Math.floor(at.getTime() / 1000))
  const time = at.toISOString()
  const standard = secrets.map((each) => `v1,${hmac(keyOf(each), `${id}.${seconds}.${body}`).toString('base64')}`)
  return {
    'webhook-id': id,
    'webhook-timestamp': seconds,
    'webhook-signature': standard.join(' '),
    'x-wrenn-delivery': id,
    'x-wrenn-timestamp': time,
    'x-wrenn-signature': `sha256=${hmac(Buffer.from(secrets[0] ?? ''), `${time}.${body}`).toString('hex')}`,
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // A percent sign that encodes nothing.
    return text
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

function keyOf(text: string): Buffer {
  return Buffer.from(text.slice(WEBHOOK_SECRET_PREFIX.length), 'base64')
}

function isSecret(text: string): boolean {
  if (!text.startsWith(WEBHOOK_SECRET_PREFIX)) return false
  const key = keyOf(text)
  const isBase64 = key.toString('base64') === text.slice(WEBHOOK_SECRET_PREFIX.length)
  return isBase64 && key.length >= MIN_SECRET_BYTES && key.length <= MAX_SECRET_BYTES
}
