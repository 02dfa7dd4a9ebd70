import { timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { AppError } from '@wrenn/base'
import type { IdentityFile, IdentityValues } from './identity-file.js'
import type { GuestUser, UserDirectory } from './users.js'

const SECRET_HEADER = 'x-wrenn-secret'
const TOKEN_HEADER = 'x-access-token'

/**
 * On whose behalf something is done: the platform's own API, where a user's rights are what they are, or a client of the E2B wire, which may do
 * with files what root may and gives them to its user.
 */
export type Caller = 'host' | 'client'

/** Who this capsule is and who may talk to it. */
export class Identity {
  #values: IdentityValues = { envs: {}, defaultUser: 'root' }
  readonly #users: UserDirectory
  readonly #file: IdentityFile | undefined

  /** With a `file`, the identity survives the agent. */
  constructor(users: UserDirectory, file?: IdentityFile) {
    this.#users = users
    this.#file = file
    this.#values = file?.read() ?? this.#values
  }

  get values(): IdentityValues {
    return this.#values
  }

  /** Whether an `/init` has given it a secret; until then it takes one from anybody. */
  get isClaimed(): boolean {
    return this.#values.secret !== undefined
  }

  /** Changes what is given; `undefined` leaves a value as it is. */
  update(values: { readonly [Name in keyof IdentityValues]?: IdentityValues[Name] | undefined }): void {
    const given = Object.entries(values).filter(([, value]) => value !== undefined)
    this.#values = { ...this.#values, ...Object.fromEntries(given) }
    this.#file?.write(this.#values)
  }

  /** The host itself. What it lets through for clients comes over lines of their own. */
  isHost(headers: IncomingHttpHeaders): boolean {
    return matches(headers[SECRET_HEADER], this.#values.secret)
  }

  /** Who asks: the host, a client with the access token that `/init` gave, or nobody known. */
  callerOf(headers: IncomingHttpHeaders): Caller | undefined {
    if (this.isHost(headers)) return 'host'
    return this.isClaimed && matches(headers[TOKEN_HEADER], this.#values.accessToken) ? 'client' : undefined
  }

  /**
   * The user of a call: the name, or the numbers `uid:gid`, in `Authorization: Basic base64(name:)`, else the capsule's default.
   * @throws AppError `unauthorized` for an unknown user
   */
  userOf(headers: IncomingHttpHeaders): GuestUser {
    const basic = /^basic\s+(\S+)$/i.exec(headers.authorization ?? '')?.[1]
    const given = basic === undefined ? '' : Buffer.from(basic, 'base64').toString('utf8')
    // Numbers of a user and a group have a colon between them, too.
    return this.userNamed(/^(?:\d+:\d+|[^:]*)/.exec(given)?.[0] ?? '')
  }

  /** The user of that name; an empty name means the capsule's default. */
  userNamed(name: string): GuestUser {
    return this.#users.find(name === '' ? this.#values.defaultUser : name)
  }
}

/**
 * The error for a call that has neither the host's secret nor the client's token; which of them was wrong it does not say.
 */
export function unauthorized(): AppError {
  return new AppError('unauthorized', 'The secret or access token is missing or wrong.')
}

/** Compares in a time that does not depend on where the texts differ. */
function matches(given: string | string[] | undefined, expected: string | undefined): boolean {
  if (typeof given !== 'string' || expected === undefined) return false
  const a = Buffer.from(given)
  const b = Buffer.from(expected)
  return a.length === b.length && timingSafeEqual(a, b)
}
