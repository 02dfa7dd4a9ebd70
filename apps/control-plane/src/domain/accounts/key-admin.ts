import { AppError } from '@wrenn/base'
import {
  type ApiKey,
  type CreateApiKeyInput,
  type ListApiKeysQuery,
  type NewApiKey,
  permissionsOf,
  type Scope,
  teamScopes,
} from '@wrenn/protocol'
import { addKey, countKeys, listKeys, lockKey, revokeKey } from '../../store/api-keys.js'
import { type NewAuditEntry, writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { lockRole } from '../../store/members.js'
import type { Actor, ApiKeyRow } from '../../store/schema.js'
import { lockTeam } from '../../store/usage.js'
import { type ApiKeys, newApiKey, storedForm } from './api-keys.js'
import type { Principal } from './principal.js'

/** People look through them; a program that makes one for each of its runs should let them expire and revoke them. */
const MAX_KEYS = 1_000

/** Keys as they are listed. */
export interface KeyPage {
  readonly items: ApiKey[]
  /** `undefined` on the last page. */
  readonly nextCursor: string | undefined
}

interface KeyAdminDeps {
  readonly db: Db
  readonly apiKeys: ApiKeys
}

/** Makes, lists and revokes the keys of a team. */
export class KeyAdmin {
  readonly #deps: KeyAdminDeps

  constructor(deps: KeyAdminDeps) {
    this.#deps = deps
  }

  /** A page of those that are not revoked, newest first; expired ones too, for a while. @throws AppError `invalid_request` */
  async list(teamId: string, { cursor, limit }: ListApiKeysQuery): Promise<KeyPage> {
    const afterId = cursor === undefined ? undefined : decode(cursor)
    const rows = await listKeys(this.#deps.db, teamId, { afterId, limit: limit + 1 })
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    return { items: page.map(toApiKey), nextCursor: last === undefined ? undefined : encode(last) }
  }

  /**
   * Makes a key that may do no more, and lives no longer, than the one that asks for it.
   * @throws AppError `forbidden`, `limit_exceeded`, `unauthorized` when the asking key was revoked meanwhile
   */
  async create(maker: Principal, input: CreateApiKeyInput, actor: Actor): Promise<NewApiKey> {
    const wanted = [
      ...new Set(input.scopes ?? maker.scopes.filter((scope) => teamScopes.some((each) => each === scope))),
    ]
    refuseMore(maker, wanted)
    const expiresAt = endOf(maker, input.expires_in_sec)
    const key = newApiKey(input.format)
    const row = await this.#deps.db.transaction().execute(async (tx) => {
      await lockTeam(tx, maker.teamId)
      await requireMaker(tx, maker)
      const { all } = await countKeys(tx, maker.teamId)
      if (all >= MAX_KEYS) {
        throw new AppError('limit_exceeded', `The team has ${all} keys, as many as it may have; revoke some.`)
      }
      const { name } = input
      const added = await addKey(tx, {
        teamId: maker.teamId,
        name,
        scopes: wanted,
        createdBy: maker.id,
        expiresAt,
        ...storedForm(key),
      })
      if (added !== undefined) await writeAudit(tx, keyEntry('api_key.create', added, actor))
      return added
    })
    if (row === undefined) throw new Error('a new random key was there already')
    return { ...toApiKey(row), key }
  }

  /**
   * Ends a key; repeats do nothing. Who may not do all that concerns the team ends only keys of their own. The last one that may do
   * everything for ever stays, or nobody could make another.
   * @throws AppError `api_key_not_found`, `forbidden`, `conflict`
   */
  async revoke(asking: Principal, id: string, actor: Actor): Promise<void> {
    const { db, apiKeys } = this.#deps
    const { teamId } = asking
    await db.transaction().execute(async (tx) => {
      await lockTeam(tx, teamId)
      const row = await lockKey(tx, teamId, id)
      if (row === undefined) throw new AppError('api_key_not_found', `The team has no key ${id}.`)
      refuseOthers(asking, row)
      if (row.revoked_at !== null) return
      if (isLastingFull(row) && (await countKeys(tx, teamId, id)).lastingFull === 0) {
        const message =
          'This is the last key of the team that may do everything and does not expire. Make another one like it first.'
        throw new AppError('conflict', message)
      }
      await revokeKey(tx, id)
      await writeAudit(tx, keyEntry('api_key.revoke', row, actor))
    })
    // Others hear of it.
    apiKeys.forget()
  }
}

/** The entry of what happened to a key. */
export function keyEntry(action: string, row: ApiKeyRow, actor: Actor | undefined): NewAuditEntry {
  const { id, name, prefix, scopes: held, team_id: teamId, expires_at: end } = row
  const details = { name, key_prefix: prefix, scopes: held.join(','), expires_at: end?.toISOString() }
  return { teamId, actor, action, resource: { type: 'api_key', id }, scope: 'admin', details }
}

/** @throws AppError `forbidden` */
function refuseOthers({ id, permissions }: Principal, { created_by: maker }: ApiKeyRow): void {
  if (permissions.has('keys.manage') || maker === id) return
  throw new AppError('forbidden', 'Somebody else made this key; they can revoke it, or an admin of the team.')
}

function isLastingFull(row: ApiKeyRow): boolean {
  return row.expires_at === null && teamScopes.every((scope) => row.scopes.includes(scope))
}

/** Until the end of the transaction the maker stays what it is. @throws AppError `unauthorized` */
async function requireMaker(tx: Db, maker: Principal): Promise<void> {
  if (maker.kind === 'user') {
    if ((await lockRole(tx, maker.teamId, maker.id)) === maker.role) return
    throw new AppError('unauthorized', 'The session has ended, or may do something else.')
  }
  const own = await lockKey(tx, maker.teamId, maker.id)
  if (own === undefined || own.revoked_at !== null) throw new AppError('unauthorized', 'The API key was revoked.')
}

/** @throws AppError `forbidden` */
function refuseMore(maker: Principal, wanted: readonly Scope[]): void {
  const beyond = wanted.filter((scope) => [...permissionsOf([scope])].some((each) => !maker.permissions.has(each)))
  if (beyond.length === 0) return
  const message =
    maker.kind === 'user'
      ? `As ${maker.role} of this team you cannot make a key with the scope ${beyond.join(', ')}.`
      : `A key cannot make one that may do more than itself; this one has not the scope ${beyond.join(', ')}.`
  throw new AppError('forbidden', message, { details: { scopes: beyond } })
}

/** @throws AppError `forbidden` */
function endOf(maker: Principal, expiresInSec: number | undefined): Date | undefined {
  const expiresAt = maker.kind === 'key' ? maker.expiresAt : undefined
  if (expiresInSec === undefined) return expiresAt
  const end = new Date(Date.now() + expiresInSec * 1000)
  if (expiresAt === undefined || end <= expiresAt) return end
  const message = `A key cannot make one that lives longer than itself; this one expires at ${expiresAt.toISOString()}.`
  throw new AppError('forbidden', message)
}

function encode({ id }: ApiKeyRow): string {
  return Buffer.from(`1:${id}`).toString('base64url')
}

/** @throws AppError `invalid_request` */
function decode(cursor: string): string {
  const [, id] = /^1:(key-[0-9a-z]{25})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1')) ?? []
  if (id === undefined) throw new AppError('invalid_request', 'cursor must be the x-next-token header of a page.')
  return id
}

function toApiKey(row: ApiKeyRow): ApiKey {
  return {
    id: row.id,
    team_id: row.team_id,
    name: row.name,
    key_prefix: row.prefix,
    scopes: row.scopes,
    created_at: row.created_at.toISOString(),
    ...(row.created_by === null ? {} : { created_by: row.created_by }),
    ...(row.expires_at === null ? {} : { expires_at: row.expires_at.toISOString() }),
    ...(row.last_used_at === null ? {} : { last_used: row.last_used_at.toISOString() }),
  }
}
