import { apiKeyIds } from '@wrenn/base'
import { type Scope, teamScopes } from '@wrenn/protocol'
import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { ApiKeyRow } from './schema.js'

/** By digest, so that the key itself is in no query and no log of the database. Revoked and expired ones too. */
export async function findKey(db: Db, keyHash: string): Promise<ApiKeyRow | undefined> {
  return await db.selectFrom('api_keys').selectAll().where('key_hash', '=', keyHash).executeTakeFirst()
}

/** False only before the first start. */
export async function hasAnyKey(db: Db): Promise<boolean> {
  return (await db.selectFrom('api_keys').select('id').limit(1).executeTakeFirst()) !== undefined
}

/** How long a key that has expired is still listed, so that its owner sees why it is refused. */
const SHOW_EXPIRED_DAYS = 30

/** Which keys of a team are listed. */
export interface KeyPage {
  /** Id of the last key of the page before. */
  readonly afterId?: string | undefined
  readonly limit: number
}

/** Those that are not revoked, newest first; expired ones for a while. */
export async function listKeys(db: Db, teamId: string, { afterId, limit }: KeyPage): Promise<ApiKeyRow[]> {
  let query = db
    .selectFrom('api_keys')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('revoked_at', 'is', null)
    .where(sql<SqlBool>`(expires_at IS NULL OR expires_at > now() - ${SHOW_EXPIRED_DAYS} * interval '1 day')`)
  if (afterId !== undefined) {
    // Keys stay when they are revoked, so that a page always finds its place.
    query = query.where(
      sql<SqlBool>`(created_at, id) < (SELECT created_at, id FROM api_keys WHERE team_id = ${teamId} AND id = ${afterId})`,
    )
  }
  return await query.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute()
}

/** A team's key, held until the end of the transaction; also one that is revoked. */
export async function lockKey(tx: Db, teamId: string, id: string): Promise<ApiKeyRow | undefined> {
  return await tx
    .selectFrom('api_keys')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('id', '=', id)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** Which of these keys are still good. */
export async function goodKeys(db: Db, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await db
    .selectFrom('api_keys')
    .select('id')
    .where(sql<SqlBool>`id = ANY (${ids}::text[])`)
    .where('revoked_at', 'is', null)
    .execute()
  return new Set(rows.map(({ id }) => id))
}

interface NewApiKey {
  readonly teamId: string
  readonly name: string
  readonly prefix: string
  readonly keyHash: string
  readonly scopes: readonly Scope[]
  readonly createdBy?: string
  readonly expiresAt?: Date | undefined
}

/** Adds a key; `undefined` when there is one with this digest already, which stays as it is. */
export async function addKey(db: Db, key: NewApiKey): Promise<ApiKeyRow | undefined> {
  return await db
    .insertInto('api_keys')
    .values({
      id: apiKeyIds.create(),
      team_id: key.teamId,
      name: key.name,
      prefix: key.prefix,
      key_hash: key.keyHash,
      scopes: key.scopes,
      created_by: key.createdBy ?? null,
      expires_at: key.expiresAt ?? null,
    })
    .onConflict((conflict) => conflict.column('key_hash').doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** From its commit on the key is refused; by other control planes when they hear of it. */
export async function revokeKey(tx: Db, id: string): Promise<void> {
  await tx.updateTable('api_keys').set({ revoked_at: sql<Date>`now()` }).where('id', '=', id).execute()
}

/** How many keys a team has that are good, and how many of them may do everything for ever, `exceptId` left out. */
export async function countKeys(db: Db, teamId: string, exceptId = ''): Promise<{ all: number; lastingFull: number }> {
  return await db
    .selectFrom('api_keys')
    .select((eb) => [
      eb.fn.countAll<number>().as('all'),
      eb.fn
        .countAll<number>()
        .filterWhere('expires_at', 'is', null)
        .filterWhere(sql<SqlBool>`scopes @> ${[...teamScopes]}::text[]`)
        .as('lastingFull'),
    ])
    .where('team_id', '=', teamId)
    .where('revoked_at', 'is', null)
    .where(sql<SqlBool>`(expires_at IS NULL OR expires_at > now())`)
    .where('id', '!=', exceptId)
    .executeTakeFirstOrThrow()
}

/**
 * Moves `last_used_at` forward for many keys at once; never back. Rows that another control plane is writing are left to it, so that two
 * never wait for each other.
 */
export async function touchKeys(db: Db, times: ReadonlyMap<string, Date>): Promise<void> {
  const ids = [...times.keys()]
  const at = [...times.values()].map((time) => time.toISOString())
  await sql`WITH used AS (
      SELECT k.id, t.at FROM api_keys AS k JOIN unnest(${ids}::text[], ${at}::timestamptz[]) AS t (id, at) ON t.id = k.id
      WHERE k.last_used_at IS NULL OR k.last_used_at < t.at
      FOR NO KEY UPDATE OF k SKIP LOCKED
    )
    UPDATE api_keys SET last_used_at = used.at FROM used WHERE used.id = api_keys.id`.execute(db)
}
