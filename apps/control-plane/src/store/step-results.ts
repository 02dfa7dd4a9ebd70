import { sql } from 'kysely'
import type { Db } from './database.js'
import type { SnapshotRow } from './schema.js'

/** What builds of a team may start from, of these hashes; the oldest first. */
export async function findStepResults(db: Db, teamId: string, hashes: readonly string[]): Promise<SnapshotRow[]> {
  if (hashes.length === 0) return []
  return await db
    .selectFrom('snapshots')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('steps_hash', 'in', hashes)
    .where('state', '=', 'ready')
    .orderBy('seq')
    .execute()
}

/** Notes that a build starts from it now. */
export async function touchStepResult(db: Db, id: string): Promise<void> {
  await db.updateTable('snapshots').set({ used_at: sql<Date>`now()` }).where('id', '=', id).execute()
}

interface ResultLimits {
  /** Of a team. */
  readonly maxResults: number
  readonly maxUnusedMs: number
}

/**
 * Hidden snapshots that nobody will start from and no tag stands for: results beyond the limits, those used longest ago first; those that were made anew on their host
 * (what another host has made meanwhile is no help where only this one may build); those of deleted teams; and what is no result and belongs to no build that is under way. One from which a capsule is being created is left for later.
 */
export async function listSpentSnapshots(
  db: Db,
  { maxResults, maxUnusedMs }: ResultLimits,
  limit: number,
): Promise<SnapshotRow[]> {
  const { rows } = await sql<SnapshotRow>`SELECT s.* FROM (
      SELECT *, row_number() OVER (
        PARTITION BY team_id, steps_hash IS NULL ORDER BY coalesce(used_at, created_at) DESC, seq DESC
      ) AS place, row_number() OVER (PARTITION BY team_id, steps_hash, host_id ORDER BY seq DESC) AS copy
      FROM snapshots WHERE hidden AND state = 'ready'
        AND NOT EXISTS (SELECT FROM template_tags WHERE snapshot_id = snapshots.id)
    ) AS s JOIN teams AS t ON t.id = s.team_id
    WHERE (t.deleted_at IS NOT NULL
        OR (s.steps_hash IS NOT NULL AND (s.place > ${maxResults} OR s.copy > 1
          OR coalesce(s.used_at, s.created_at) < now() - ${maxUnusedMs} * interval '1 millisecond'))
        OR (s.steps_hash IS NULL AND NOT EXISTS (
          SELECT FROM template_builds AS b WHERE b.id = s.build_id AND b.ended_at IS NULL)))
      AND NOT EXISTS (SELECT FROM capsules AS c
        WHERE c.snapshot_id = s.id AND c.parent_id IS NULL AND c.state IN ('pending', 'starting'))
    ORDER BY s.seq LIMIT ${limit}`.execute(db)
  return rows
}
