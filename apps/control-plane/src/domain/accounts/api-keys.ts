import { createHash, randomBytes } from 'node:crypto'
import { AppError, errorText, type Logger } from '@wrenn/base'
import { type ApiKeyForm, isScope, permissionsOf } from '@wrenn/protocol'
import { findKey, touchKeys } from '../../store/api-keys.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { ApiKeyRow } from '../../store/schema.js'
import type { KeyPrincipal, Principal } from './principal.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'api_key_changed'
const CACHE_LIMIT = 10_000
const TOUCH_EVERY_MS = 5_000
const PREFIX_LENGTH = 12

/** `wrn_` and 32 hexadecimal digits, or `e2b_` and 40: clients made for E2B refuse others. */
export function newApiKey(form: ApiKeyForm = 'wrn'): string {
  return `${form}_${randomBytes(form === 'wrn' ? 16 : 20).toString('hex')}`
}

/** What of a key is stored: what people tell keys apart by, and the digest of all of it. */
export function storedForm(apiKey: string): { readonly prefix: string; readonly keyHash: string } {
  return { prefix: apiKey.slice(0, PREFIX_LENGTH), keyHash: hashOf(apiKey) }
}

function hashOf(apiKey: string): string {
  return createHash('sha256').update(apiKey).digest('hex')
}

interface ApiKeysDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'isFresh' | 'listen'>
  readonly logger: Logger
}

/**
 * Knows whose an API key is. Answers are kept, and believed only while the database is heard: a revoked key is refused at once by who
 * hears of it, and within a second by one that has lost its connection.
 */
export class ApiKeys {
  readonly #deps: ApiKeysDeps
  readonly #cache = new Map<string, KeyPrincipal>()
  /** Grows with each change; what was read before one is not kept after it. */
  #version = 0
  readonly #used = new Map<string, Date>()
  #timer: NodeJS.Timeout | undefined

  constructor(deps: ApiKeysDeps) {
    this.#deps = deps
    const forget = (): void => this.forget()
    deps.notifications.listen(CHANNEL, forget, forget)
  }

  /** @throws AppError `unauthorized` */
  async authenticate(apiKey: string | undefined): Promise<KeyPrincipal> {
    if (apiKey === undefined || apiKey === '') throw new AppError('unauthorized', 'This call needs an API key.')
    const hash = hashOf(apiKey)
    const known = this.#deps.notifications.isFresh ? this.#cache.get(hash) : undefined
    const principal = known ?? (await this.#load(hash))
    if (hasExpired(principal)) throw new AppError('unauthorized', 'The API key has expired.')
    this.#touch(principal.id)
    return principal
  }

  /** Reads all keys anew. Changes are rare and keys of one process few, so none is worth telling apart. */
  forget(): void {
    this.#version++
    this.#cache.clear()
  }

  /** Writes when keys were used. Failing is logged and costs only those times. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const times = new Map(this.#used)
    this.#used.clear()
    if (times.size === 0) return
    try {
      await touchKeys(this.#deps.db, times)
    } catch (error) {
      this.#deps.logger.warn({ error: errorText(error), keys: times.size }, 'api_keys.use_not_written')
    }
  }

  async #load(hash: string): Promise<KeyPrincipal> {
    const version = this.#version
    const row = await findKey(this.#deps.db, hash)
    if (row === undefined) throw new AppError('unauthorized', 'The API key is not valid.')
    if (row.revoked_at !== null) throw new AppError('unauthorized', 'The API key was revoked.')
    const principal = principalOf(row)
    if (version === this.#version) {
      if (this.#cache.size >= CACHE_LIMIT) this.#cache.clear()
      this.#cache.set(hash, principal)
    }
    return principal
  }

  #touch(keyId: string): void {
    this.#used.set(keyId, new Date())
    this.#timer ??= setTimeout(() => void this.flush(), TOUCH_EVERY_MS).unref()
  }
}

/** A scope of a newer version lets nobody do anything here. */
function principalOf(row: ApiKeyRow): KeyPrincipal {
  const scopes = row.scopes.filter(isScope)
  return {
    kind: 'key',
    id: row.id,
    name: row.name,
    teamId: row.team_id,
    scopes,
    permissions: permissionsOf(scopes),
    expiresAt: row.expires_at ?? undefined,
  }
}

/** Whether the time of the key is over. */
export function hasExpired({ expiresAt }: Principal): boolean {
  return expiresAt !== undefined && expiresAt.getTime() <= Date.now()
}
