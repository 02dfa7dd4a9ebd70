import type { Db } from '../../store/database.js'
import { addMember, findMembership, type Membership, unownedFirstTeam } from '../../store/members.js'
import type { UserRow } from '../../store/schema.js'
import { createTeam } from '../../store/teams.js'

/** A team of their own. */
export async function foundTeam(tx: Db, { id, name }: Pick<UserRow, 'id' | 'name'>): Promise<Membership> {
  const teamId = await createTeam(tx, `${name}'s Team`)
  await addMember(tx, teamId, id, 'owner')
  return { teamId, role: 'owner' }
}

/** The team that somebody works in first: the first account of the platform owns the one that was there before, others get one of their own. */
export async function findOrFoundTeam(tx: Db, user: UserRow, isFirst: boolean): Promise<Membership> {
  const firstTeam = isFirst ? await unownedFirstTeam(tx) : undefined
  if (firstTeam !== undefined) await addMember(tx, firstTeam, user.id, 'owner')
  return (await findMembership(tx, user.id)) ?? (await foundTeam(tx, user))
}
