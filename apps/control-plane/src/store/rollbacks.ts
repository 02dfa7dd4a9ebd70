import { type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'

/**
 * The capsule's generation now, when a rollback of it, or a start from its disk, began at or after `generation`. Generations, not times: those of several
 * control planes need not agree.
 */
export async function findRollback(db: Db, capsuleId: string, generation: number): Promise<number | undefined> {
  const row = await db
    .selectFrom('operations')
    .innerJoin('capsules', 'capsules.id', 'operations.capsule_id')
    .select('capsules.generation')
    .where('capsule_id', '=', capsuleId)
    .where((eb) =>
      eb.or([
        eb('operations.kind', '=', 'rollback'),
        eb.and([eb('operations.kind', '=', 'resume'), sql<SqlBool>`operations.params->>'from' = 'disk'`]),
      ]),
    )
    .where('operations.state', '!=', 'failed')
    .where('operations.generation', '>=', generation)
    .limit(1)
    .executeTakeFirst()
  return row?.generation
}
