import type { Db } from '../../store/database.js'
import { findMembership } from '../../store/members.js'
import { PLATFORM_TEAM_ID } from './from.js'

/** In whose audit trail it is told what happens to somebody outside of any session; the platform's for who is in no team, or unknown. */
export async function homeTeamOf(db: Db, userId: string | undefined): Promise<string> {
  const membership = userId === undefined ? undefined : await findMembership(db, userId)
  return membership?.teamId ?? PLATFORM_TEAM_ID
}
