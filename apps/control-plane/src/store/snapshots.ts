import { type Insertable, type SqlBool, sql, type Updateable } from 'kysely'
import type { Db } from './database.js'
import type { SnapshotRow, SnapshotsTable } from './schema.js'

/** What the name of a template stands for when no tag is said. */
export const DEFAULT_TAG = 'default'

/** Of a row of `snapshots`: whether capsules are made of it by a name or a tag. What builds keep for themselves is none. */
export const isTemplate = sql<SqlBool>`(snapshots.state IN ('creating', 'ready')
  AND (NOT snapshots.hidden OR EXISTS (SELECT FROM template_tags WHERE template_tags.snapshot_id = snapshots.id)))`

/** How many templates are on a host, each version that has a tag by itself. */
export async function countTemplatesOfHost(db: Db, hostId: string): Promise<number> {
  const query = db.selectFrom('snapshots').select(sql<number>`count(*)`.as('count')).where(isTemplate)
  return (await query.where('host_id', '=', hostId).executeTakeFirstOrThrow()).count
}

/** Some of them, by name. */
export async function listTemplatesOfHost(db: Db, hostId: string, limit: number) {
  const query = db.selectFrom('snapshots').select(['id', 'team_id', 'name']).where(isTemplate)
  return await query.where('host_id', '=', hostId).orderBy('name').orderBy('id').limit(limit).execute()
}

/** Adds a snapshot; `undefined` when its team has a live one of that name. */
export async function insertSnapshot(db: Db, snapshot: Insertable<SnapshotsTable>): Promise<SnapshotRow | undefined> {
  return await db
    .insertInto('snapshots')
    .values(snapshot)
    .onConflict((conflict) => conflict.columns(['team_id', 'name']).where('deleted_at', 'is', null).doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** A live snapshot by its name, also one that is still being made, or by the name of a template and a tag: `web:v2`. */
export async function findSnapshotByName(db: Db, teamId: string, name: string): Promise<SnapshotRow | undefined> {
  const live = db.selectFrom('snapshots').selectAll().where('team_id', '=', teamId).where('deleted_at', 'is', null)
  const [, template = name, tag = DEFAULT_TAG] = /^([^:]+):(.+)$/.exec(name) ?? []
  if (tag === DEFAULT_TAG) return await live.where('name', '=', template).executeTakeFirst()
  return await live
    .where('id', 'in', (tagged) =>
      tagged
        .selectFrom('template_tags')
        .select('snapshot_id')
        .where('team_id', '=', teamId)
        .where('name', '=', template)
        .where('tag', '=', tag),
    )
    .executeTakeFirst()
}

/** By id, deleted ones too. */
export async function findSnapshot(db: Db, id: string): Promise<SnapshotRow | undefined> {
  return await db.selectFrom('snapshots').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Holds a snapshot's row until the end of the transaction. */
export async function lockSnapshot(tx: Db, id: string): Promise<SnapshotRow | undefined> {
  return await tx.selectFrom('snapshots').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}

/** A team's snapshots that capsules can be created from, oldest first, without those that the platform keeps for itself. */
export async function listSnapshots(db: Db, teamId: string): Promise<SnapshotRow[]> {
  return await db
    .selectFrom('snapshots')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('state', '=', 'ready')
    .where('hidden', '=', false)
    .orderBy('seq')
    .execute()
}

/** Which snapshots of a team; what is absent does not matter. */
export interface SnapshotFilter {
  readonly capsuleId?: string | undefined
  readonly name?: string | undefined
  /** Only snapshots older than this position. */
  readonly beforeSeq?: number | undefined
  readonly limit: number
}

/** The same without what builds have made, newest first. */
export async function findSnapshots(db: Db, teamId: string, filter: SnapshotFilter): Promise<SnapshotRow[]> {
  const { capsuleId, name, beforeSeq, limit } = filter
  let query = db
    .selectFrom('snapshots')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('state', '=', 'ready')
    .where('build_id', 'is', null)
  if (capsuleId !== undefined) query = query.where('capsule_id', '=', capsuleId)
  if (name !== undefined) query = query.where('name', '=', name)
  if (beforeSeq !== undefined) query = query.where('seq', '<', beforeSeq)
  return await query.orderBy('seq', 'desc').limit(limit).execute()
}

/** Every snapshot whose files a host may hold. @param joinedId the host; absent: the only one */
export async function listHeldSnapshots(db: Db, joinedId?: string): Promise<SnapshotRow[]> {
  const held = db.selectFrom('snapshots').selectAll().where('state', '!=', 'deleted')
  if (joinedId === undefined) return await held.execute()
  return await held.where((eb) => eb.or([eb('host_id', '=', joinedId), eb('host_id', 'is', null)])).execute()
}

/** Writes what hosts report, or where it is on its way. */
export async function patchSnapshot(
  db: Db,
  id: string,
  patch: Updateable<SnapshotsTable>,
): Promise<SnapshotRow | undefined> {
  return await db.updateTable('snapshots').set(patch).where('id', '=', id).returningAll().executeTakeFirst()
}

/** Notes that it is not made; its files, should a host have made them all the same, are still to go. */
export async function giveUpSnapshot(db: Db, id: string): Promise<void> {
  await patchSnapshot(db, id, { state: 'deleting', deleted_at: new Date() })
}

/** Which of these are known to have been deleted or given up. */
export async function listDeletedSnapshots(db: Db, ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return []
  const deleted = db.selectFrom('snapshots').select('id').where('id', 'in', ids).where('state', '=', 'deleted')
  return (await deleted.execute()).map(({ id }) => id)
}

/** A capsule that is being created from the snapshot right now. */
export async function findStarting(db: Db, snapshotId: string): Promise<string | undefined> {
  const row = await db
    .selectFrom('capsules')
    .select('id')
    .where('snapshot_id', '=', snapshotId)
    .where('parent_id', 'is', null)
    .where('state', 'in', ['pending', 'starting'])
    .executeTakeFirst()
  return row?.id
}
