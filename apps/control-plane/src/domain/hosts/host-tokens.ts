import { hostIds } from '@wrenn/base'

const SECRET = /^[0-9A-Za-z_-]{43}$/
/** What a machine joins by, and what it gets its next certificate by: each names its host, so that it can be looked up. */
const prefixes = { join: 'wrj_', refresh: 'wrh_' } as const
type TokenKind = keyof typeof prefixes

/** A token as its bearer has it. */
export interface HostToken {
  readonly hostId: string
  readonly secret: string
}

export function hostToken(kind: TokenKind, { hostId, secret }: HostToken): string {
  return `${prefixes[kind]}${hostId.slice('host-'.length)}_${secret}`
}

/** `undefined` when it has not the form of such a token. */
export function parseHostToken(kind: TokenKind, token: string): HostToken | undefined {
  if (!token.startsWith(prefixes[kind])) return undefined
  const rest = token.slice(prefixes[kind].length)
  const [hostId, secret] = [`host-${rest.slice(0, 25)}`, rest.slice(26)]
  return rest[25] === '_' && hostIds.is(hostId) && SECRET.test(secret) ? { hostId, secret } : undefined
}
