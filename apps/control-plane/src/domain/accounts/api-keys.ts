import { createHash, randomBytes } from 'node:crypto'
import { open, readFile, stat } from 'node:fs/promises'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import { permissionsOf, scopes } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { addKey, createTeam, findKey, hasAnyKey, touchKeys } from '../../store/teams.js'
import type { Principal } from './principal.js'

const CACHE_MS = 5_000
const CACHE_LIMIT = 10_000
const TOUCH_EVERY_MS = 30_000
const PREFIX_LENGTH = 12

/** `wrn_` and 32 hexadecimal digits. */
export function newApiKey(): string {
  return `wrn_${randomBytes(16).toString('hex')}`
}

function hashApiKey(key: string): string {
  return createHash('sha256').update(key).digest('hex')
}

interface CachedKey {
  readonly principal: Principal
  readonly until: number
}

/** Knows whose an API key is. Answers are kept for 5 seconds, so a revoked key works at most that much longer. */
export class ApiKeys {
  readonly #db: Db
  readonly #cache = new Map<string, CachedKey>()
  readonly #touchedAt = new Map<string, number>()

  constructor(db: Db) {
    this.#db = db
  }

  /** @throws AppError `unauthorized` */
  async authenticate(apiKey: string | undefined): Promise<Principal> {
    if (apiKey === undefined || apiKey === '') throw new AppError('unauthorized', 'This call needs an API key.')
    const hash = hashApiKey(apiKey)
    const cached = this.#cache.get(hash)
    if (cached !== undefined && cached.until > performance.now()) return cached.principal
    this.#cache.delete(hash)
    const key = await findKey(this.#db, hash)
    if (key === undefined) throw new AppError('unauthorized', 'The API key is not valid.')
    const principal: Principal = { kind: 'key', ...key, scopes, permissions: permissionsOf(scopes) }
    if (this.#cache.size >= CACHE_LIMIT) this.#cache.clear()
    this.#cache.set(hash, { principal, until: performance.now() + CACHE_MS })
    await this.#touch(principal.id)
    return principal
  }

  async #touch(keyId: string): Promise<void> {
    const now = performance.now()
    if (now - (this.#touchedAt.get(keyId) ?? Number.NEGATIVE_INFINITY) < TOUCH_EVERY_MS) return
    this.#touchedAt.set(keyId, now)
    await touchKeys(this.#db, [keyId], new Date())
  }
}

/**
 * Makes a team and its first key when the database has none, and leaves the key in `file` (0600). A key that is already in
 * the file is taken, so that a lost database or a crash between the two steps never invalidates it.
 */
export async function ensureFirstKey(db: Db, file: string, logger: Logger): Promise<void> {
  if (await hasAnyKey(db)) {
    if ((await existingKey(file)) === undefined) logger.warn({ file }, 'api_key.file_missing')
    return
  }
  const kept = await existingKey(file)
  const key = kept ?? newApiKey()
  if (kept === undefined) await writeKey(file, key)
  const teamId = await createTeam(db, 'Default')
  await addKey(db, { teamId, name: 'First key', prefix: key.slice(0, PREFIX_LENGTH), keyHash: hashApiKey(key) })
  logger.info({ file, teamId }, 'api_key.created')
}

/** In place: its folder need not be ours to write. Half a key that a crash leaves is no key, and the next start writes anew. */
async function writeKey(path: string, key: string): Promise<void> {
  await using file = await open(path, 'w', 0o600)
  await file.writeFile(`${key}\n`)
  await file.sync()
}

async function existingKey(file: string): Promise<string | undefined> {
  try {
    await stat(file)
    const key = (await readFile(file, 'utf8')).trim()
    return /^wrn_[0-9A-Za-z]{32}$/.test(key) ? key : undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
