import type { IncomingMessage } from 'node:http'
import { PORT_TOKEN_HEADER } from '@wrenn/protocol'
import { API_KEY, splitToken, TRAFFIC_TOKEN_HEADER, withoutPortCookie } from './access.js'
import { AGENT_CORS } from './agent-cors.js'
import { type Destination, isForAgent, isSecure, type RequestHead, ROUTING_HEADERS } from './destination.js'
import { isExpecting } from './framing.js'
import { publicLocation } from './location.js'
import { memo } from './memo.js'

/** Names and values in turn, as Node reads and writes them. */
export type RawHeaders = string[]

/** Of one connection, not of the message (RFC 9110 §7.6.1); framing is made anew on each side. */
const HOP_BY_HOP = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
])
/** What `Connection` cannot take away: without them a message would mean something else. */
const ALWAYS_KEPT = new Set(['host', 'content-length', 'expect'])
/** Who says where a request comes from is us; services believe these. */
const ORIGIN =
  /^(?:forwarded|x-forwarded(?:-.*)?|x-real-ip|x-client-ip|x-cluster-client-ip|true-client-ip|cf-connecting-ip)$/
/** Ours: what names the capsule and opens the platform, which a capsule must not see. */
const PRIVATE = new Set<string>([
  ROUTING_HEADERS.id,
  ROUTING_HEADERS.port,
  PORT_TOKEN_HEADER,
  TRAFFIC_TOKEN_HEADER,
  'x-wrenn-secret', // by which hosts prove themselves to guest agents
])

type Kind = 'passed' | 'dropped' | 'key' | 'cookie' | 'referer' | 'expect'
const MAX_KEPT_NAME = 64
/** Of a name as it came. */
const kindOf = memo((name): Kind => judged(name.toLowerCase()), MAX_KEPT_NAME)

function judged(lower: string): Kind {
  if (HOP_BY_HOP.has(lower)) return 'dropped'
  // Gateways of scripting languages make one name of both.
  const canonical = lower.replaceAll('_', '-')
  if (ORIGIN.test(canonical) || PRIVATE.has(canonical)) return 'dropped'
  if (canonical === 'x-api-key' || canonical === 'authorization') return 'key'
  return lower === 'cookie' || lower === 'referer' || lower === 'expect' ? lower : 'passed'
}

/** A request's headers as the service in the capsule gets them, without those that are `withheld` (lower case). */
export function headersForService(request: RequestHead, withheld: readonly string[] = []): RawHeaders {
  const { rawHeaders } = request
  const dropped = namedByConnection(rawHeaders, withheld)
  const headers: RawHeaders = []
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name = '', value = ''] = [rawHeaders[at], rawHeaders[at + 1]]
    const kind = kindOf(name)
    if (!isForService(kind, value) || dropped?.has(name.toLowerCase())) continue
    if (kind === 'expect' && !isExpecting(request)) continue
    const given = cleaned(kind, value)
    if (given !== '' || value === '') headers.push(name, given)
  }
  if (request.headers['transfer-encoding'] !== undefined) headers.push('Transfer-Encoding', 'chunked')
  if (/\btrailers\b/i.test(String(request.headers.te ?? ''))) headers.push('TE', 'trailers')
  headers.push(...originOf(request))
  return headers
}

/** Without what opens the ports of the capsule; a page's own address may still have it in a `Referer`. */
function cleaned(kind: Kind, value: string): string {
  if (kind === 'cookie') return withoutPortCookie(value)
  return kind === 'referer' ? splitToken(value).path : value
}

function isForService(kind: Kind, value: string): boolean {
  return kind !== 'dropped' && !(kind === 'key' && API_KEY.test(value.trim()))
}

function originOf(request: RequestHead): RawHeaders {
  const { headers, socket } = request
  const address = (socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '')
  const [proto, usualPort] = isSecure(request) ? ['https', '443'] : ['http', '80']
  const { host = '' } = headers
  const port = /:(\d+)$/.exec(host)?.[1] ?? usualPort
  const node = address.includes(':') ? `"[${address}]"` : address
  return [
    ...['X-Forwarded-For', address, 'X-Forwarded-Host', host, 'X-Forwarded-Proto', proto, 'X-Forwarded-Port', port],
    ...['Forwarded', `for=${node};host="${host.replaceAll(/["\\]/g, '')}";proto=${proto}`],
  ]
}

/** A service's headers as the client gets them. */
export function headersForClient(answer: Pick<IncomingMessage, 'rawHeaders'>, destination: Destination): RawHeaders {
  const { rawHeaders } = answer
  const dropped = namedByConnection(rawHeaders)
  const headers: RawHeaders = []
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name = '', value = ''] = [rawHeaders[at], rawHeaders[at + 1]]
    const lower = name.toLowerCase()
    if (HOP_BY_HOP.has(lower) || dropped?.has(lower) || lower === 'wrenn-error-code') continue
    if (isForAgent(destination) && lower === 'cache-control') continue
    headers.push(name, translated(lower, value, destination))
  }
  // On the origin that capsules share, a file has the same URL in all of them.
  if (isForAgent(destination)) headers.push(...AGENT_CORS, 'Cache-Control', 'no-store')
  return headers
}

function translated(name: string, value: string, destination: Destination): string {
  if (name === 'location' || name === 'content-location') return publicLocation(value, destination)
  // A cookie for more than its own host would be one for other capsules, and for the API.
  if (name === 'set-cookie') return value.replaceAll(/;\s*domain\s*=[^;]*/gi, '')
  return value
}

/** What `Connection` names, and `more`, in lower case; `undefined` when that is nothing. */
function namedByConnection(
  rawHeaders: readonly string[],
  more: readonly string[] = [],
): ReadonlySet<string> | undefined {
  let named: Set<string> | undefined
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? ''
    if (name.length !== 'connection'.length || name.toLowerCase() !== 'connection') continue
    for (const token of rawHeaders[at + 1]?.split(',') ?? []) {
      const lower = token.trim().toLowerCase()
      if (!ALWAYS_KEPT.has(lower)) named = (named ?? new Set()).add(lower)
    }
  }
  for (const name of more) named = (named ?? new Set()).add(name)
  return named
}

/** A request's trailers as the service gets them: some programs take them for headers, so what is dropped there is dropped here. */
export function trailersForService({ rawTrailers }: Pick<IncomingMessage, 'rawTrailers'>): [string, string][] {
  return pairsOf(rawTrailers).filter(([name, value]) => {
    const kind = kindOf(name)
    return kind !== 'cookie' && kind !== 'referer' && isForService(kind, value)
  })
}

/** A service's trailers as the client gets them; without those that would change the framing, and our own name. */
export function trailersForClient({ rawTrailers }: Pick<IncomingMessage, 'rawTrailers'>): [string, string][] {
  return pairsOf(rawTrailers).filter(
    ([name]) => !HOP_BY_HOP.has(name.toLowerCase()) && name.toLowerCase() !== 'wrenn-error-code',
  )
}

function pairsOf(raw: readonly string[]): [string, string][] {
  return raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1] ?? ''] as [string, string]] : []))
}
