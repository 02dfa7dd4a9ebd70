import { type Insertable, type SqlBool, sql } from 'kysely'
import type { Db } from './database.js'
import type { CheckpointRow, CheckpointState, CheckpointsTable } from './schema.js'

/** Adds a checkpoint; `undefined` when its capsule has one of that name. */
export async function insertCheckpoint(
  db: Db,
  checkpoint: Insertable<CheckpointsTable>,
): Promise<CheckpointRow | undefined> {
  return await db
    .insertInto('checkpoints')
    .values(checkpoint)
    .onConflict((conflict) => conflict.columns(['capsule_id', 'name']).doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** By id or name. */
export async function findCheckpoint(db: Db, capsuleId: string, ref: string): Promise<CheckpointRow | undefined> {
  return await db
    .selectFrom('checkpoints')
    .selectAll()
    .where('capsule_id', '=', capsuleId)
    .where((eb) => eb.or([eb('id', '=', ref), eb('name', '=', ref)]))
    .executeTakeFirst()
}

/** Holds a checkpoint's row until the end of the transaction. */
export async function lockCheckpoint(tx: Db, id: string): Promise<CheckpointRow | undefined> {
  return await tx.selectFrom('checkpoints').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}

/** Oldest first; those the platform made for itself only when asked. */
export async function listCheckpoints(
  db: Db,
  capsuleId: string,
  options: { readonly all?: boolean } = {},
): Promise<CheckpointRow[]> {
  let query = db.selectFrom('checkpoints').selectAll().where('capsule_id', '=', capsuleId)
  if (options.all !== true) query = query.where('state', '=', 'ready').where('hidden', '=', false)
  return await query.orderBy('seq').execute()
}

/** Which of these capsules have checkpoints. */
export async function listWithCheckpoints(db: Db, capsuleIds: readonly string[]): Promise<string[]> {
  const of = sql<SqlBool>`capsule_id = ANY (${capsuleIds}::text[])`
  const rows = await db.selectFrom('checkpoints').select('capsule_id').distinct().where(of).execute()
  return rows.map(({ capsule_id }) => capsule_id)
}

/** Whether something of the capsule is not known to survive a power loss yet. */
export async function hasVolatile(db: Db, capsuleId: string): Promise<boolean> {
  const row = await db
    .selectFrom('checkpoints')
    .select('id')
    .where('capsule_id', '=', capsuleId)
    .where('state', '=', 'ready')
    .where('durable_at', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

/** Moves a checkpoint on, whatever it was. */
export async function setCheckpointState(db: Db, id: string, state: CheckpointState): Promise<void> {
  await db.updateTable('checkpoints').set({ state }).where('id', '=', id).execute()
}

/** What hosts report of checkpoints and snapshots. */
export interface CheckpointFacts {
  /** Absent: not known now. */
  readonly size_bytes?: number
  readonly durable_at: Date | null
}

/** What a host says about one that is there. */
export async function recordCheckpoint(db: Db, id: string, facts: CheckpointFacts): Promise<void> {
  await db.updateTable('checkpoints').set(facts).where('id', '=', id).execute()
}

/** Takes one out of its capsule's tree; what came from it comes from its parent now. */
export async function removeCheckpoint(db: Db, checkpoint: CheckpointRow): Promise<void> {
  const { id, parent_id, capsule_id } = checkpoint
  await db.updateTable('checkpoints').set({ parent_id }).where('parent_id', '=', id).execute()
  await db
    .updateTable('capsules')
    .set({ checkpoint_id: parent_id })
    .where('id', '=', capsule_id)
    .where('checkpoint_id', '=', id)
    .execute()
  await db.deleteFrom('checkpoints').where('id', '=', id).execute()
}

/** Of a capsule that is gone. */
export async function removeCheckpoints(db: Db, capsuleId: string): Promise<void> {
  await db.deleteFrom('checkpoints').where('capsule_id', '=', capsuleId).execute()
}
