import { apiKeyIds, teamIds } from '@wrenn/base'
import type { Db } from './database.js'

interface KnownKey {
  readonly id: string
  readonly teamId: string
  readonly name: string
}

/** By digest, so that the key itself is in no query and no log of the database. */
export async function findKey(db: Db, keyHash: string): Promise<KnownKey | undefined> {
  const row = await db
    .selectFrom('api_keys')
    .select(['id', 'team_id', 'name'])
    .where('key_hash', '=', keyHash)
    .executeTakeFirst()
  return row === undefined ? undefined : { id: row.id, teamId: row.team_id, name: row.name }
}

/** False only before the first start. */
export async function hasAnyKey(db: Db): Promise<boolean> {
  return (await db.selectFrom('api_keys').select('id').limit(1).executeTakeFirst()) !== undefined
}

/** Gives the new team's id. Names need not be unique. */
export async function createTeam(db: Db, name: string): Promise<string> {
  const id = teamIds.create()
  await db.insertInto('teams').values({ id, name }).execute()
  return id
}

interface NewApiKey {
  readonly teamId: string
  readonly name: string
  readonly prefix: string
  readonly keyHash: string
}

/** Adds a key; a key that exists already stays as it is. */
export async function addKey(db: Db, key: NewApiKey): Promise<void> {
  await db
    .insertInto('api_keys')
    .values({
      id: apiKeyIds.create(),
      team_id: key.teamId,
      name: key.name,
      prefix: key.prefix,
      key_hash: key.keyHash,
    })
    .onConflict((conflict) => conflict.column('key_hash').doNothing())
    .execute()
}

/** Notes a use, for people who look for keys that nobody needs; callers do it rarely. */
export async function touchKeys(db: Db, keyIds: readonly string[], at: Date): Promise<void> {
  if (keyIds.length === 0) return
  await db.updateTable('api_keys').set({ last_used_at: at }).where('id', 'in', keyIds).execute()
}
