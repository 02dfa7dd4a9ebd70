import { parseHostName } from '@wrenn/base'

/** A request that says two things at once, or one that servers read differently: it is not passed on. */
export class UnclearRequest extends Error {}

/** What a filter needs to know of a request. */
export interface RequestHead {
  /** The one that it is for; `undefined` for an address, or none. */
  readonly host: string | undefined
  readonly body: { readonly framing: 'length'; readonly bytes: number } | { readonly framing: 'chunked' }
  /** Asks for another protocol: after `101` what follows are no more requests. */
  readonly upgrade: 'none' | 'websocket' | 'other'
}

const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
const ONE_TOKEN = new RegExp(`^${TOKEN}$`)
const REQUEST_LINE = new RegExp(`^(${TOKEN}) ([\\x21-\\x7e\\x80-\\xff]+) HTTP/1\\.([01])$`)
const FIELD = new RegExp(`^(${TOKEN}):[ \\t]*([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$`)
const ABSOLUTE = /^https?:\/\/([^/?#]*)/i
const AUTHORITY = /^([^:@[\]]+)(?::\d{0,5})?$/
/** So that the number stays exact. */
const LENGTH = /^\d{1,15}$/

/** Whether a byte may begin a request's method. */
export function beginsRequest(byte: number): boolean {
  return ONE_TOKEN.test(String.fromCharCode(byte))
}

/**
 * Reads a head, as strictly as no server does: what two of them could read in two ways is refused (RFC 9112 §11.2).
 * @param text from the method to the empty line, without it, in latin1
 * @throws UnclearRequest
 */
export function parseRequestHead(text: string): RequestHead {
  const [first = '', ...lines] = text.split('\r\n')
  const [, method = '', target = '', minor] = REQUEST_LINE.exec(first) ?? []
  if (method === '') throw new UnclearRequest('no request line')
  if (method === 'CONNECT') throw new UnclearRequest('CONNECT names another server')
  const fields = readFields(lines)
  return {
    host: hostOf(target, fields.get('host') ?? []),
    body: bodyOf(fields, minor === '0'),
    upgrade: upgradeOf(fields.get('upgrade') ?? []),
  }
}

function readFields(lines: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const fields = new Map<string, string[]>()
  for (const line of lines) {
    const [, name, value = ''] = FIELD.exec(line) ?? []
    if (name === undefined) throw new UnclearRequest('no field')
    const key = name.toLowerCase()
    const values = fields.get(key)
    if (values === undefined) fields.set(key, [value.trimEnd()])
    else values.push(value.trimEnd())
  }
  return fields
}

function hostOf(target: string, hosts: readonly string[]): string | undefined {
  if (hosts.length > 1) throw new UnclearRequest('more than one Host')
  const told = hosts[0] === undefined ? undefined : nameOf(hosts[0])
  if (target.startsWith('/') || target === '*') return told
  // A server goes by the target, others by the field. RFC 9112 §3.2.2
  const [, authority] = ABSOLUTE.exec(target) ?? []
  if (authority === undefined) throw new UnclearRequest('a target of no known form')
  if (hosts.length === 1 && nameOf(authority) !== told) throw new UnclearRequest('the target and Host differ')
  return nameOf(authority)
}

function nameOf(authority: string): string | undefined {
  const [, host] = AUTHORITY.exec(authority) ?? []
  return host === undefined ? undefined : parseHostName(host)
}

function bodyOf(fields: ReadonlyMap<string, readonly string[]>, isOld: boolean): RequestHead['body'] {
  const codings = fields.get('transfer-encoding') ?? []
  const lengths = fields.get('content-length') ?? []
  if (codings.length === 0 && lengths.length === 0) return { framing: 'length', bytes: 0 }
  if (codings.length + lengths.length > 1) throw new UnclearRequest('more than one length')
  const [coding] = codings
  const [length = ''] = lengths
  if (coding !== undefined) {
    if (isOld || coding.toLowerCase() !== 'chunked') throw new UnclearRequest('a transfer coding that is not chunked')
    return { framing: 'chunked' }
  }
  if (!LENGTH.test(length)) throw new UnclearRequest('a length that is no number')
  return { framing: 'length', bytes: Number(length) }
}

function upgradeOf(values: readonly string[]): RequestHead['upgrade'] {
  if (values.length === 0) return 'none'
  return values.length === 1 && values[0]?.toLowerCase() === 'websocket' ? 'websocket' : 'other'
}
