import type { Db } from './database.js'
import type { CapsuleRow } from './schema.js'

/** A capsule, and the name of its team. */
export type NamedCapsule = CapsuleRow & { readonly teamName: string }

interface AllCapsulesFilter {
  readonly state: CapsuleRow['state'] | undefined
  readonly teamId: string | undefined
  readonly beyondSeq: number | undefined
  readonly limit: number
}

/** Those of all teams that are not stopped, newest first: few beside the ones that are, and they have an index of their own. */
export async function listAllCapsules(
  db: Db,
  { state, teamId, beyondSeq, limit }: AllCapsulesFilter,
): Promise<NamedCapsule[]> {
  let query = db
    .selectFrom('capsules as c')
    .innerJoin('teams as t', 't.id', 'c.team_id')
    .selectAll('c')
    .select('t.name as teamName')
    .where('c.state', '<>', 'stopped')
  if (state !== undefined) query = query.where('c.state', '=', state)
  if (teamId !== undefined) query = query.where('c.team_id', '=', teamId)
  if (beyondSeq !== undefined) query = query.where('c.seq', '<', beyondSeq)
  return await query.orderBy('c.seq', 'desc').limit(limit).execute()
}
