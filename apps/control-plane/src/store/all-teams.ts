import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { TeamRow } from './schema.js'
import type { TeamQuota } from './usage.js'

/** A team, and how many people are in it. */
export type CountedTeam = TeamRow & { readonly members: number }

function counted(db: Db) {
  return db
    .selectFrom('teams as t')
    .selectAll('t')
    .select((eb) =>
      eb
        .selectFrom('team_members as m')
        .whereRef('m.team_id', '=', 't.id')
        .select(sql<number>`count(*)`.as('members'))
        .$asScalar()
        .$notNull()
        .as('members'),
    )
    .where('t.deleted_at', 'is', null)
}

/** Those that are not deleted, oldest first; a page begins after the team `after`. */
export async function listAllTeams(db: Db, limit: number, after?: string): Promise<CountedTeam[]> {
  let query = counted(db)
  if (after !== undefined) {
    query = query.where(
      sql<SqlBool>`(t.created_at, t.id) > (SELECT created_at, id FROM teams AS last WHERE last.id = ${after})`,
    )
  }
  return await query.orderBy('t.created_at').orderBy('t.id').limit(limit).execute()
}

/** One that is not deleted. */
export async function findCountedTeam(db: Db, id: string): Promise<CountedTeam | undefined> {
  return await counted(db).where('t.id', '=', id).executeTakeFirst()
}

/** What is left out stays. */
export async function changeQuota(
  tx: Db,
  id: string,
  change: Partial<TeamQuota & Pick<TeamRow, 'plan'>>,
): Promise<void> {
  await tx.updateTable('teams').set(change).where('id', '=', id).execute()
}
