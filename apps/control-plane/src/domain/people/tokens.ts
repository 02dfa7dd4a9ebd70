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

/** The first one of a session is random, every other one follows from the one before. */
export function refreshToken(sessionId: string, secret: string): string {
  return `${REFRESH_TOKEN_PREFIX}${sessionId.slice(4)}_${secret}`
}

interface RefreshParts {
  readonly sessionId: string
  readonly secret: string
}

/** `undefined` when it has not the form of a refresh token. */
export function parseRefreshToken(token: string): RefreshParts | undefined {
  if (!token.startsWith(REFRESH_TOKEN_PREFIX)) return undefined
  const rest = token.slice(REFRESH_TOKEN_PREFIX.length)
  const sessionId = `ses-${rest.slice(0, 25)}`
  const secret = rest.slice(26)
  return rest[25] === '_' && sessionIds.is(sessionId) && SECRET.test(secret) ? { sessionId, secret } : undefined
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
