import { sql } from 'kysely'
import type { Db } from './database.js'

/** A tag, and what it stands for. */
interface TaggedBuild {
  readonly tag: string
  readonly snapshotId: string
  /** `null` for a snapshot that no build has made. */
  readonly buildId: string | null
  readonly createdAt: Date
}

/** Tags of a template beside its own name, by name. */
export async function listTags(db: Db, teamId: string, name: string): Promise<TaggedBuild[]> {
  return await db
    .selectFrom('template_tags as t')
    .innerJoin('snapshots as s', 's.id', 't.snapshot_id')
    .select(['t.tag', 's.id as snapshotId', 's.build_id as buildId', 't.created_at as createdAt'])
    .where('t.team_id', '=', teamId)
    .where('t.name', '=', name)
    .orderBy('t.tag')
    .execute()
}

/** Has each of `tags` stand for the snapshot from now on. */
export async function putTags(
  tx: Db,
  { teamId, name, snapshotId }: { readonly teamId: string; readonly name: string; readonly snapshotId: string },
  tags: readonly string[],
): Promise<void> {
  if (tags.length === 0) return
  // In one order, so that two who put the same ones do not wait for each other.
  const each = [...new Set(tags)].sort()
  await tx
    .insertInto('template_tags')
    .values(each.map((tag) => ({ team_id: teamId, name, tag, snapshot_id: snapshotId })))
    .onConflict((conflict) =>
      conflict
        .columns(['team_id', 'name', 'tag'])
        .doUpdateSet({ snapshot_id: snapshotId, created_at: sql<Date>`now()` }),
    )
    .execute()
}

/** Takes tags away; absent: all of the template's. @returns those that were there */
export async function dropTags(tx: Db, teamId: string, name: string, tags?: readonly string[]): Promise<string[]> {
  let query = tx.deleteFrom('template_tags').where('team_id', '=', teamId).where('name', '=', name)
  if (tags !== undefined) query = query.where('tag', 'in', tags)
  return (await query.returning('tag').execute()).map(({ tag }) => tag)
}

/** Whether a tag stands for the snapshot. */
export async function isTagged(db: Db, snapshotId: string): Promise<boolean> {
  const row = await db
    .selectFrom('template_tags')
    .select('tag')
    .where('snapshot_id', '=', snapshotId)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}
