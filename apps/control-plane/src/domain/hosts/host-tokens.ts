import { hostIds } from '@wrenn/base'
import { namedToken, parseNamedToken } from '../people/index.js'

/** What a machine joins by, and what it gets its next certificate by: each names its host, so that it can be looked up. */
const prefixes = { join: 'wrj_', refresh: 'wrh_' } as const
type TokenKind = keyof typeof prefixes

/** A token as its bearer has it. */
export interface HostToken {
  readonly hostId: string
  readonly secret: string
}

export function hostToken(kind: TokenKind, { hostId: id, secret }: HostToken): string {
  return namedToken(prefixes[kind], { id, secret })
}

/** `undefined` when it has not the form of such a token. */
export function parseHostToken(kind: TokenKind, token: string): HostToken | undefined {
  const parts = parseNamedToken(prefixes[kind], token, { begin: 'host', is: hostIds.is })
  return parts && { hostId: parts.id, secret: parts.secret }
}
