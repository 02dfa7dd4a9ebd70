import { sql } from 'kysely'
import type { Db } from './database.js'
import type { RegistryLoginRow } from './schema.js'

type Saved = Pick<RegistryLoginRow, 'team_id' | 'registry' | 'username' | 'password'>

/** By registry. */
export async function listRegistryLogins(db: Db, teamId: string): Promise<RegistryLoginRow[]> {
  return await db.selectFrom('registry_logins').selectAll().where('team_id', '=', teamId).orderBy('registry').execute()
}

export async function findRegistryLogin(
  db: Db,
  teamId: string,
  registry: string,
): Promise<RegistryLoginRow | undefined> {
  return await db
    .selectFrom('registry_logins')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('registry', '=', registry)
    .executeTakeFirst()
}

/** Puts it in the place of an earlier one. */
export async function saveRegistryLogin(tx: Db, login: Saved): Promise<RegistryLoginRow> {
  const { username, password } = login
  return await tx
    .insertInto('registry_logins')
    .values(login)
    .onConflict((conflict) =>
      conflict.columns(['team_id', 'registry']).doUpdateSet({ username, password, updated_at: sql<Date>`now()` }),
    )
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Encrypts what is kept by another key, unless it was replaced meanwhile. */
export async function resealRegistryLogin(db: Db, { team_id, registry, password }: RegistryLoginRow, sealed: string) {
  await db
    .updateTable('registry_logins')
    .set({ password: sealed })
    .where('team_id', '=', team_id)
    .where('registry', '=', registry)
    .where('password', '=', password)
    .execute()
}

/** @returns whether there was one */
export async function dropRegistryLogin(tx: Db, teamId: string, registry: string): Promise<boolean> {
  const gone = await tx
    .deleteFrom('registry_logins')
    .where('team_id', '=', teamId)
    .where('registry', '=', registry)
    .executeTakeFirst()
  return gone.numDeletedRows > 0n
}
