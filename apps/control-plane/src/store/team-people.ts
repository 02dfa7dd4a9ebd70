import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { ApiKeyRow, TeamMembersTable } from './schema.js'

/** Somebody in a team. */
export interface TeamPerson {
  readonly userId: string
  readonly name: string
  readonly email: string
  readonly role: TeamMembersTable['role']
  readonly joinedAt: Date
}

function people(db: Db, teamId: string) {
  return db
    .selectFrom('team_members as m')
    .innerJoin('users as u', 'u.id', 'm.user_id')
    .select(['u.id as userId', 'u.name', 'u.email', 'm.role', 'm.joined_at as joinedAt'])
    .where('m.team_id', '=', teamId)
}

/** Everybody in a team, who has been there for longest first. */
export async function listPeople(db: Db, teamId: string): Promise<TeamPerson[]> {
  return await people(db, teamId).orderBy('m.joined_at').orderBy('u.id').execute()
}

export async function findPerson(db: Db, teamId: string, userId: string): Promise<TeamPerson | undefined> {
  return await people(db, teamId).where('m.user_id', '=', userId).executeTakeFirst()
}

/** `undefined`: nobody in the team has this address. */
export async function findPersonByEmail(db: Db, teamId: string, email: string): Promise<TeamPerson | undefined> {
  return await people(db, teamId).where(sql<SqlBool>`lower(u.email) = lower(${email})`).executeTakeFirst()
}

export async function setRole(tx: Db, teamId: string, userId: string, role: TeamPerson['role']): Promise<void> {
  await tx
    .updateTable('team_members')
    .set({ role })
    .where('team_id', '=', teamId)
    .where('user_id', '=', userId)
    .execute()
}

export async function dropMember(tx: Db, teamId: string, userId: string): Promise<void> {
  await tx.deleteFrom('team_members').where('team_id', '=', teamId).where('user_id', '=', userId).execute()
}

/** How many teams somebody owns. */
export async function countOwned(db: Db, userId: string): Promise<number> {
  const { count } = await db
    .selectFrom('team_members')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('user_id', '=', userId)
    .where('role', '=', 'owner')
    .executeTakeFirstOrThrow()
  return count
}

/** People whose address begins so and who are in a team with `userId`; nobody else is found. */
export async function searchColleagues(
  db: Db,
  userId: string,
  beginning: string,
  limit: number,
): Promise<{ readonly userId: string; readonly email: string }[]> {
  return await db
    .selectFrom('users as u')
    .select(['u.id as userId', 'u.email'])
    .where(sql<SqlBool>`starts_with(u.email, lower(${beginning}))`)
    .where('u.status', '=', 'active')
    .where('u.deleted_at', 'is', null)
    .where(sql<SqlBool>`EXISTS (SELECT FROM team_members AS mine JOIN team_members AS theirs ON theirs.team_id = mine.team_id
      WHERE mine.user_id = ${userId} AND theirs.user_id = u.id)`)
    .orderBy('u.email')
    .limit(limit)
    .execute()
}

/** The good keys of a team that somebody has made, and those that were made with them. */
export async function keysMadeBy(tx: Db, teamId: string, userId: string): Promise<ApiKeyRow[]> {
  const { rows } = await sql<ApiKeyRow>`WITH RECURSIVE made AS (
      SELECT * FROM api_keys WHERE team_id = ${teamId} AND created_by = ${userId}
      UNION SELECT k.* FROM api_keys AS k JOIN made ON k.created_by = made.id WHERE k.team_id = ${teamId}
    )
    SELECT * FROM made WHERE revoked_at IS NULL`.execute(tx)
  return rows
}
