import { sql } from 'kysely'
import { mayBeOnHost } from './capsules.js'
import type { Db } from './database.js'
import type { Actor, DrainedCapsuleRow, DrainedState, HostDrainRow } from './schema.js'

/** Begins to empty a host; one that is being emptied goes on, with that many at once. */
export async function beginDrain(
  tx: Db,
  hostId: string,
  { concurrency, actor }: { readonly concurrency: number; readonly actor: Actor },
): Promise<void> {
  await tx
    .insertInto('host_drains')
    .values({ host_id: hostId, concurrency, actor: JSON.stringify(actor) })
    .onConflict((conflict) => conflict.column('host_id').doUpdateSet({ concurrency }))
    .execute()
}

/** @returns whether it was being emptied */
export async function dropDrain(tx: Db, hostId: string): Promise<boolean> {
  const gone = await tx.deleteFrom('host_drains').where('host_id', '=', hostId).executeTakeFirst()
  return gone.numDeletedRows > 0n
}

export async function findDrain(db: Db, hostId: string): Promise<HostDrainRow | undefined> {
  return await db.selectFrom('host_drains').selectAll().where('host_id', '=', hostId).executeTakeFirst()
}

/** If the host is not cordoned, as after a version that knows no drains has uncordoned it. @returns whether it was */
export async function dropUncordonedDrain(tx: Db, hostId: string): Promise<boolean> {
  const uncordoned = tx
    .selectFrom('joined_hosts')
    .select('id')
    .where('id', '=', hostId)
    .where('cordoned_at', 'is', null)
  const gone = await tx.deleteFrom('host_drains').where('host_id', 'in', uncordoned).executeTakeFirst()
  return gone.numDeletedRows > 0n
}

/** Takes one to look after it for `forMs`, of those that nobody does; `undefined` when there is none. */
export async function claimDrain(db: Db, forMs: number): Promise<HostDrainRow | undefined> {
  return await db
    .updateTable('host_drains')
    .set({ looked_until: sql<Date>`now() + ${forMs} * interval '1 millisecond'` })
    .where('host_id', '=', (eb) =>
      eb
        .selectFrom('host_drains')
        .select('host_id')
        .where('looked_until', '<=', sql<Date>`now()`)
        .orderBy('looked_until')
        .limit(1)
        .forUpdate()
        .skipLocked(),
    )
    .returningAll()
    .executeTakeFirst()
}

/** Lets the next one look after it in a while. */
export async function releaseDrain(db: Db, hostId: string, afterMs: number): Promise<void> {
  const until = sql<Date>`now() + ${afterMs} * interval '1 millisecond'`
  await db.updateTable('host_drains').set({ looked_until: until }).where('host_id', '=', hostId).execute()
}

/** Notes whether something is left. @returns whether that is news */
export async function setDrainEnded(db: Db, hostId: string, isEnded: boolean): Promise<boolean> {
  const changed = await db
    .updateTable('host_drains')
    .set({ ended_at: isEnded ? sql<Date>`now()` : null })
    .where('host_id', '=', hostId)
    .where('ended_at', isEnded ? 'is' : 'is not', null)
    .executeTakeFirst()
  return changed.numUpdatedRows > 0n
}

/**
 * Brings the list of a host's capsules up to date: those that have come to it since, and those that have left it or ended. One that is on its way is left to
 * whoever looks at its move.
 */
export async function refreshDrained(db: Db, hostId: string): Promise<void> {
  // One that has left and come back, as after a move that failed, has to go again.
  await sql`INSERT INTO drained_capsules (host_id, capsule_id, team_id)
    SELECT d.host_id, c.id, c.team_id FROM host_drains AS d JOIN capsules AS c ON c.host_id = d.host_id
    WHERE d.host_id = ${hostId} AND ${mayBeOnHost('c')}
    ON CONFLICT (host_id, capsule_id) DO UPDATE SET state = 'waiting', next_at = now(), updated_at = now()
      WHERE drained_capsules.state = 'done'`.execute(db)
  await sql`UPDATE drained_capsules AS m SET state = 'done', error = NULL, updated_at = now()
    WHERE m.host_id = ${hostId} AND m.state IN ('waiting', 'failed') AND NOT EXISTS (
      SELECT FROM capsules AS c WHERE c.id = m.capsule_id AND c.host_id = m.host_id AND ${mayBeOnHost('c')}
    )`.execute(db)
}

/** In the order in which they are next. */
export async function listDrained(
  db: Db,
  hostId: string,
  states: readonly DrainedState[],
): Promise<DrainedCapsuleRow[]> {
  const ofHost = db.selectFrom('drained_capsules').selectAll().where('host_id', '=', hostId)
  return await ofHost.where('state', 'in', states).orderBy('next_at').orderBy('capsule_id').execute()
}

/** Those that may be moved now. */
export async function listDue(db: Db, hostId: string, limit: number): Promise<DrainedCapsuleRow[]> {
  const ofHost = db.selectFrom('drained_capsules').selectAll().where('host_id', '=', hostId)
  const due = ofHost.where('state', 'in', ['waiting', 'failed']).where('next_at', '<=', sql<Date>`now()`)
  return await due.orderBy('attempts').orderBy('next_at').orderBy('capsule_id').limit(limit).execute()
}

type CapsuleOfDrain = Pick<DrainedCapsuleRow, 'host_id' | 'capsule_id'>

/** A move of it has begun. */
export async function setMoving(db: Db, { host_id, capsule_id }: CapsuleOfDrain, operationId: string): Promise<void> {
  await update(db, { host_id, capsule_id }, { state: 'moving', operation_id: operationId })
}

/** It is there no more. @param error why it does not go on elsewhere, although it should */
export async function setDone(
  db: Db,
  which: CapsuleOfDrain,
  error?: { readonly code: string; readonly message: string },
): Promise<void> {
  const why = error && JSON.stringify({ code: error.code, message: error.message })
  await update(db, which, { state: 'done', error: why ?? null })
}

/** It is still there, and is tried again in a while. */
export async function setFailed(
  db: Db,
  which: CapsuleOfDrain & Pick<DrainedCapsuleRow, 'attempts'>,
  { code, message, againMs }: { readonly code: string; readonly message: string; readonly againMs: number },
): Promise<void> {
  await update(db, which, {
    state: 'failed',
    attempts: which.attempts + 1,
    next_at: sql<Date>`now() + ${againMs} * interval '1 millisecond'`,
    error: JSON.stringify({ code, message }),
  })
}

async function update(db: Db, { host_id, capsule_id }: CapsuleOfDrain, change: object): Promise<void> {
  const ofCapsule = db.updateTable('drained_capsules').set({ ...change, updated_at: sql<Date>`now()` })
  await ofCapsule.where('host_id', '=', host_id).where('capsule_id', '=', capsule_id).execute()
}
