import type { Db } from '../../store/database.js'
import { addMember, type Membership } from '../../store/members.js'
import type { UserRow } from '../../store/schema.js'
import { createTeam } from '../../store/teams.js'

/** A team of their own. */
export async function foundTeam(tx: Db, { id, name }: Pick<UserRow, 'id' | 'name'>): Promise<Membership> {
  const teamId = await createTeam(tx, `${name}'s Team`)
  await addMember(tx, teamId, id, 'owner')
  return { teamId, role: 'owner' }
}
