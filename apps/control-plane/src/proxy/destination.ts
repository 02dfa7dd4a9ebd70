import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { AppError, capsuleIds } from '@wrenn/base'
import { GUEST_AGENT_PORT, type TunnelTarget } from '@wrenn/protocol'
import { memo } from './memo.js'

/** Of DNS (RFC 1035 §2.3.4). */
const MAX_KEPT_NAME = 255

/** Existing clients send both with every request of their data plane, on an origin that all capsules share. */
export const ROUTING_HEADERS = { id: 'e2b-sandbox-id', port: 'e2b-sandbox-port' } as const

/** What is read of a request, whichever HTTP it came by. */
export type RequestHead = Pick<IncomingMessage, 'headers' | 'rawHeaders' | 'method' | 'url' | 'httpVersion' | 'socket'>

/** Where a request is to go, beside the API. */
export interface Destination extends TunnelTarget {
  /** What follows `{port}-{id}.` in the host name, port included; `undefined` when headers named the capsule. */
  readonly domain: string | undefined
  /** Whether the client came by TLS. */
  readonly isSecure: boolean
  /** The request's path and query, as they came. */
  readonly path: string
  /** Sees the head of the service's answer before it is passed on. */
  readonly onAnswer?: ((answer: IncomingMessage) => void) | undefined
  /** Names of headers that have let the request in and that its service is not to see. */
  readonly withheld?: readonly string[]
}

/** Whether it is the guest agent itself that is asked, instead of somebody's service. */
export function isForAgent({ port }: TunnelTarget): boolean {
  return port === GUEST_AGENT_PORT
}

/** What host names say of ports of capsules, on the domains of a platform. */
export class Destinations {
  readonly #domains: readonly string[]
  readonly #named: (authority: string) => Named

  constructor(domains: readonly string[]) {
    this.#domains = domains
    this.#named = memo((authority) => readName(authority, domains), MAX_KEPT_NAME)
  }

  /**
   * The port of a capsule that a request is meant for, by its host name `{port}-{id}.{domain}` or by the routing headers; `undefined` for the
   * API. The headers count only where the host name says nothing: `localhost`, an address, `sandbox.…`.
   * @throws AppError `invalid_request`, `not_found`, `capsule_not_found` for what is meant for a capsule but names none
   */
  of(request: RequestHead): Destination | undefined {
    requireOneHost(request)
    const authority = request.headers.host?.toLowerCase() ?? ''
    const { host, named } = this.#named(authority)
    if (named !== undefined) {
      const { capsuleId, port, domain } = named
      return { capsuleId, port, domain, isSecure: isSecure(request), path: pathOf(request, authority) }
    }
    if (!isShared(host)) return undefined
    const { [ROUTING_HEADERS.id]: idHeader, [ROUTING_HEADERS.port]: portHeader } = request.headers
    if (idHeader === undefined && portHeader === undefined) return undefined
    if (idHeader === undefined || portHeader === undefined) {
      const missing = idHeader === undefined ? ROUTING_HEADERS.id : ROUTING_HEADERS.port
      throw new AppError('invalid_request', `The request has a missing header: ${missing}.`)
    }
    return {
      ...target(String(idHeader), String(portHeader)),
      domain: undefined,
      isSecure: isSecure(request),
      path: pathOf(request, authority),
    }
  }

  /** Whether a host name is that of a port. */
  isPort(host: string): boolean {
    const [, domain = ''] = /^\d+-[^.]+\.(.+)$/.exec(host.toLowerCase()) ?? []
    return this.#domains.includes(domain)
  }
}

interface Named {
  /** Without port and the root's dot. */
  readonly host: string
  /** `undefined`: the name is none of a port. */
  readonly named: (TunnelTarget & { readonly domain: string }) | undefined
}

/** @throws AppError as {@link Destinations.of} */
function readName(authority: string, domains: readonly string[]): Named {
  const host = hostOf(authority)
  const [, label = '', domain = ''] = /^([^.]+)\.(.+)$/.exec(host) ?? []
  const [, port, id] = /^(\d+)-(.+)$/.exec(label) ?? []
  if (port === undefined || id === undefined) return { host, named: undefined }
  if (domains.includes(domain)) {
    return { host, named: { ...target(id, port), domain: authority.slice(authority.indexOf('.') + 1) } }
  }
  if (capsuleIds.is(id)) throw foreignDomain(domain, domains)
  return { host, named: undefined }
}

/** Came by the listener for TLS. */
export function isSecure({ socket }: Pick<RequestHead, 'socket'>): boolean {
  return 'encrypted' in socket
}

/** Without port and the root's dot. */
function hostOf(authority: string): string {
  return authority.replace(/:\d*$/, '').replace(/\.$/, '')
}

/** Whether a host name says nothing of a capsule. */
function isShared(host: string): boolean {
  return host === 'localhost' || isIP(host.replace(/^\[(.*)\]$/, '$1')) !== 0 || host.startsWith('sandbox.')
}

/** What clients of the E2B wire may take for an id, so that they are told in their words that there is none. */
const FOREIGN_ID = /^[a-z0-9][a-z0-9-]{0,63}$/

function target(name: string, digits: string): TunnelTarget {
  const port = Number(digits)
  // One spelling only: what looks different to a filter in front of us must be different.
  if (!/^[1-9]\d{0,4}$/.test(digits) || port > 65_535) {
    throw new AppError('invalid_request', 'The port must be a number from 1 to 65535, without leading zeros.')
  }
  const capsuleId = withoutClientId(name)
  const isForeign = isForAgent({ capsuleId, port }) && FOREIGN_ID.test(capsuleId)
  if (!capsuleIds.is(capsuleId) && !isForeign) throw new AppError('capsule_not_found', 'There is no such capsule.')
  return { capsuleId, port }
}

/** Old clients put the id of the machine behind a sandbox's. */
function withoutClientId(name: string): string {
  const id = name.replace(/-[0-9a-f]{8}$/, '')
  return capsuleIds.is(id) ? id : name
}

/** RFC 9112 §3.2: somebody in front of us may have gone by the other one. */
function requireOneHost({ rawHeaders }: RequestHead): void {
  let hosts = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]?.length === 'host'.length && rawHeaders[at]?.toLowerCase() === 'host') hosts++
  }
  if (hosts > 1) throw new AppError('invalid_request', 'The request has more than one Host.')
}

/** A target in absolute form must name the host that `Host` names. */
function pathOf({ url = '/' }: RequestHead, authority: string): string {
  if (/[^\x21-\xff]/.test(url)) throw new AppError('invalid_request', 'The target has a character that no URL has.')
  if (url.startsWith('/') || url === '*') return url
  const [, named, path = ''] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(url) ?? []
  if (named?.toLowerCase() !== authority) throw new AppError('invalid_request', 'The request names two hosts.')
  return path.startsWith('/') ? path : `/${path}`
}

function foreignDomain(domain: string, domains: readonly string[]): AppError {
  const message = `${domain.slice(0, 100)} is no domain of this platform; WRENN_PROXY_DOMAIN has ${domains.join(', ')}.`
  return new AppError('not_found', message)
}
