import type { Db } from './database.js'
import type { TeamMembersTable } from './schema.js'

type Role = TeamMembersTable['role']

/** What somebody is in a team; `undefined`: not in it. */
export interface Membership {
  readonly teamId: string
  readonly role: Role
}

/** Does nothing for who is in it already. */
export async function addMember(tx: Db, teamId: string, userId: string, role: Role): Promise<void> {
  await tx
    .insertInto('team_members')
    .values({ team_id: teamId, user_id: userId, role })
    .onConflict((conflict) => conflict.columns(['team_id', 'user_id']).doNothing())
    .execute()
}

/** What an active account is in a team, held until the end of the transaction. */
export async function lockRole(tx: Db, teamId: string, userId: string): Promise<Role | undefined> {
  const row = await tx
    .selectFrom('team_members as m')
    .innerJoin('users as u', 'u.id', 'm.user_id')
    .select('m.role')
    .where('m.team_id', '=', teamId)
    .where('m.user_id', '=', userId)
    .where('u.status', '=', 'active')
    .where('u.deleted_at', 'is', null)
    .forShare()
    .executeTakeFirst()
  return row?.role
}

/** The team that somebody has been in for longest, or the one that is asked for. */
export async function findMembership(db: Db, userId: string, teamId?: string): Promise<Membership | undefined> {
  let query = db.selectFrom('team_members').select(['team_id as teamId', 'role']).where('user_id', '=', userId)
  if (teamId !== undefined) query = query.where('team_id', '=', teamId)
  return await query.orderBy('joined_at').orderBy('team_id').limit(1).executeTakeFirst()
}

/** The team that the platform began with, while nobody is in it. */
export async function unownedFirstTeam(db: Db): Promise<string | undefined> {
  const first = await db
    .selectFrom('teams')
    .select('id')
    .where('deleted_at', 'is', null)
    .orderBy('created_at')
    .orderBy('id')
    .limit(1)
    .executeTakeFirst()
  if (first === undefined) return undefined
  const member = await db
    .selectFrom('team_members')
    .select('user_id')
    .where('team_id', '=', first.id)
    .limit(1)
    .executeTakeFirst()
  return member === undefined ? first.id : undefined
}
