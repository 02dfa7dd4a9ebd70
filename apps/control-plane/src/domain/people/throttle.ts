import { createHash } from 'node:crypto'
import { isIPv6 } from 'node:net'
import { AppError } from '@wrenn/base'
import { countAttempt, forgetAttempts, uncountAttempt } from '../../store/attempts.js'
import type { Db } from '../../store/database.js'

const MINUTE_MS = 60_000
const CACHE_LIMIT = 10_000

/** What is counted, how many of it count as honest, and in what time. */
export const throttles = {
  /** Of one address from one place: whoever guesses there locks out that place, not the owner of the address. */
  login: { count: 10, windowMs: 15 * MINUTE_MS },
  /** Of whatever addresses from one place. */
  loginPlace: { count: 100, windowMs: 15 * MINUTE_MS },
  /** Guesses at the code of the set-up. */
  setUpPlace: { count: 10, windowMs: 15 * MINUTE_MS },
  signup: { count: 5, windowMs: 60 * MINUTE_MS },
  signupPlace: { count: 30, windowMs: 60 * MINUTE_MS },
  reset: { count: 5, windowMs: 60 * MINUTE_MS },
  resetPlace: { count: 30, windowMs: 60 * MINUTE_MS },
  /** Mails to one address, wherever they are asked for: nobody's mailbox is flooded. */
  mailbox: { count: 10, windowMs: 24 * 60 * MINUTE_MS },
  /** Of one person or key, over all their teams. */
  invite: { count: 50, windowMs: 24 * 60 * MINUTE_MS },
  /** Invitations to one address, whoever invites; not counted with its owner's own mails. */
  invitedMailbox: { count: 20, windowMs: 24 * 60 * MINUTE_MS },
  /** Of one person. */
  search: { count: 60, windowMs: MINUTE_MS },
  /** Programs that begin to wait for a person. */
  devicePlace: { count: 60, windowMs: 60 * MINUTE_MS },
  /** Of one person: looks at and decisions about programs that wait. */
  deviceCode: { count: 30, windowMs: 15 * MINUTE_MS },
  /** Sign-ins by a provider that begin. */
  oauthPlace: { count: 100, windowMs: 15 * MINUTE_MS },
  /** Second factors of one account from one place. */
  secondFactor: { count: 10, windowMs: 15 * MINUTE_MS },
  /** Codes of one account, wherever they are typed: of a million each is good for three that are tried. */
  secondFactorAccount: { count: 30, windowMs: 60 * MINUTE_MS },
  /** What passkeys are asked to sign. */
  passkeyPlace: { count: 300, windowMs: 15 * MINUTE_MS },
  /** Guesses at tokens of mails and of sessions. */
  tokenPlace: { count: 300, windowMs: 15 * MINUTE_MS },
  /** Guesses at tokens of hosts. */
  hostPlace: { count: 60, windowMs: 15 * MINUTE_MS },
} as const
type ThrottleKind = keyof typeof throttles

/** Bounds how often something is tried, over all control plane processes together. */
export class Throttle {
  readonly #db: Db
  /** Until when a bucket is known to be full, by `performance.now()`: a flood costs no queries. */
  readonly #fullUntil = new Map<string, number>()

  constructor(db: Db) {
    this.#db = db
  }

  /**
   * Counts an attempt before it is made, so that many at once are no more than many in a row.
   * @throws AppError `limit_exceeded` with `retryAfterSec`
   */
  async count(kind: ThrottleKind, ...what: readonly string[]): Promise<void> {
    const bucket = bucketOf(kind, what)
    const known = this.#fullUntil.get(bucket)
    if (known !== undefined && known > performance.now()) throw tooMany(known - performance.now())
    this.#fullUntil.delete(bucket)
    const { count, windowMs } = throttles[kind]
    const attempt = await countAttempt(this.#db, bucket, windowMs)
    if (attempt.count <= count) return
    if (this.#fullUntil.size >= CACHE_LIMIT) this.#fullUntil.clear()
    this.#fullUntil.set(bucket, performance.now() + attempt.leftMs)
    throw tooMany(attempt.leftMs)
  }

  /** Counts in a transaction, to be undone with it. False when there were enough. */
  async allows(tx: Db, kind: ThrottleKind, ...what: readonly string[]): Promise<boolean> {
    const { count, windowMs } = throttles[kind]
    return (await countAttempt(tx, bucketOf(kind, what), windowMs)).count <= count
  }

  /** It was no guess, and those before it were slips. */
  async forget(kind: ThrottleKind, ...what: readonly string[]): Promise<void> {
    await forgetAttempts(this.#db, bucketOf(kind, what))
  }

  /** It was no guess; those before it may have been. */
  async uncount(kind: ThrottleKind, ...what: readonly string[]): Promise<void> {
    await uncountAttempt(this.#db, bucketOf(kind, what))
  }
}

function tooMany(leftMs: number): AppError {
  const retryAfterSec = Math.max(1, Math.ceil(leftMs / 1000))
  return new AppError('limit_exceeded', `This was tried too often; try again in ${retryAfterSec} s.`, {
    details: { retryAfterSec },
  })
}

/** Addresses of mail are not written down in the clear. */
function bucketOf(kind: string, what: readonly string[]): string {
  return `${kind}:${createHash('sha256').update(JSON.stringify(what)).digest('hex')}`
}

/** Who has one address of IPv6 has the other 2^64 of its network too (RFC 6177). */
export function placeOf(ip: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)?.[1]
  if (mapped !== undefined) return mapped
  if (!isIPv6(ip)) return ip
  const [head = '', tail] = ip.split('%', 1)[0]?.split('::') ?? []
  const groups = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros =
    tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - groups.length - after.length) }, () => '0')
  return `${[...groups, ...zeros, ...after]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`
}
