import { teamIds } from '@wrenn/base'
import type { Actor } from '../../store/schema.js'

/** Where a request came from. */
export interface From {
  readonly ip: string
  readonly userAgent: string
  readonly requestId: string
}

/** Whose audit trail tells of people that are in no team yet, or are nobody. No team has this id. */
export const PLATFORM_TEAM_ID = `team-${'0'.repeat(25)}`
if (!teamIds.is(PLATFORM_TEAM_ID)) throw new Error('the platform has no id')

/** A person, as records of changes name them. */
export function personActor({ id, email }: { readonly id: string; readonly email: string }, from: From): Actor {
  return { kind: 'user', id, name: email, requestId: from.requestId, ip: from.ip }
}
