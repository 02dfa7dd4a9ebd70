import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { sessionIds } from '@wrenn/base'
import { ACCESS_TOKEN_PREFIX, REFRESH_TOKEN_PREFIX } from '@wrenn/protocol'

const SECRET = /^[0-9A-Za-z_-]{43}$/
/** A replay of a token this many rotations old is refused as one that is unknown. */
const MAX_STEPS = 5_000

/** What is stored of a token. 256 random bits need no slow hash. */
export function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}

/** 256 random bits, for programs. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url')
}

/**
 * 256 random bits that people carry about: also a word of a command line, which does not begin with a dash, and marked as a whole by a double
 * click.
 */
export function newCode(): string {
  return randomBytes(32).toString('hex')
}

export function newAccessToken(): string {
  return `${ACCESS_TOKEN_PREFIX}${newSecret()}`
}

interface NamedParts {
  readonly id: string
  readonly secret: string
}

/** A token that says of what it is, so that this can be looked up: prefix, id without the part that all of a kind have, and secret. */
export function namedToken(prefix: string, { id, secret }: NamedParts): string {
  return `${prefix}${id.slice(id.indexOf('-') + 1)}_${secret}`
}

/** `undefined` when it has not the form of such a token. @param kind what ids of it begin with, and the proof of one */
export function parseNamedToken(
  prefix: string,
  token: string,
  kind: { readonly begin: string; is(id: string): boolean },
): NamedParts | undefined {
  if (!token.startsWith(prefix)) return undefined
  const [code = '', ...rest] = token.slice(prefix.length).split('_')
  const [id, secret] = [`${kind.begin}-${code}`, rest.join('_')]
  return kind.is(id) && SECRET.test(secret) ? { id, secret } : undefined
}

/** The first one of a session is random, every other one follows from the one before. */
export function refreshToken(sessionId: string, secret: string): string {
  return namedToken(REFRESH_TOKEN_PREFIX, { id: sessionId, secret })
}

/** `undefined` when it has not the form of a refresh token. */
export function parseRefreshToken(token: string): { readonly sessionId: string; readonly secret: string } | undefined {
  const parts = parseNamedToken(REFRESH_TOKEN_PREFIX, token, { begin: 'ses', is: sessionIds.is })
  return parts && { sessionId: parts.id, secret: parts.secret }
}

/** The same each time: an answer that was lost can be asked for again. Nobody can tell it without the key. */
export function nextSecret(secret: string, rotationKey: string): string {
  return createHmac('sha256', rotationKey).update(secret).digest('base64url')
}

/** Whether the secret was this session's before: `digest` is one that follows from it in up to `rotations` steps. */
export function isAncestor(secret: string, digest: string, rotationKey: string, rotations: number): boolean {
  let current = secret
  for (let step = 0; step < Math.min(rotations, MAX_STEPS); step++) {
    current = nextSecret(current, rotationKey)
    if (isSame(digestOf(current), digest)) return true
  }
  return false
}

/** Takes as long whatever is the same. */
export function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}
