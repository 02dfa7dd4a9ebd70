import { teamIds } from '@wrenn/base'
import type { Db } from './database.js'

/** Gives the new team's id. Names need not be unique. */
export async function createTeam(db: Db, name: string): Promise<string> {
  const id = teamIds.create()
  await db.insertInto('teams').values({ id, name }).execute()
  return id
}

/** All teams, oldest first. */
export async function listTeamNames(db: Db): Promise<{ readonly id: string; readonly name: string }[]> {
  return await db.selectFrom('teams').select(['id', 'name']).orderBy('created_at').orderBy('id').execute()
}

/** For people; `undefined` where there is no such team. */
export async function findTeamName(db: Db, id: string): Promise<string | undefined> {
  return (await db.selectFrom('teams').select('name').where('id', '=', id).executeTakeFirst())?.name
}
