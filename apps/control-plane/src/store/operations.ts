import type { ErrorBody } from '@wrenn/protocol'
import { type Insertable, type SqlBool, sql } from 'kysely'
import { audited, entryOfOperation } from './audit.js'
import type { Db } from './database.js'
import type { OperationKind, OperationRow, OperationsTable } from './schema.js'

/** A row to insert; its lease begins with it. */
export type NewOperation = Omit<Insertable<OperationsTable>, 'lease_until'>

/** Adds an operation, and tells the audit trail of it; `undefined` when the team used its idempotency key before. */
export async function insertOperation(
  db: Db,
  operation: NewOperation,
  leaseMs: number,
): Promise<OperationRow | undefined> {
  const insert = (tx: Db) =>
    tx
      .insertInto('operations')
      .values({ ...operation, lease_until: leaseEnd(leaseMs) })
      .onConflict((conflict) =>
        conflict.columns(['team_id', 'kind', 'idempotency_key']).where('idempotency_key', 'is not', null).doNothing(),
      )
      .returningAll()
      .executeTakeFirst()
  return await audited(db, insert, entryOfOperation)
}

/** The operation that an idempotency key stands for; keys are told apart by team and kind. */
export async function findByKey(
  db: Db,
  teamId: string,
  kind: OperationKind,
  key: string,
): Promise<OperationRow | undefined> {
  return await db
    .selectFrom('operations')
    .selectAll()
    .where('team_id', '=', teamId)
    .where('kind', '=', kind)
    .where('idempotency_key', '=', key)
    .executeTakeFirst()
}

/** Ended ones too. */
export async function findOperation(db: Db, id: string): Promise<OperationRow | undefined> {
  return await db.selectFrom('operations').selectAll().where('id', '=', id).executeTakeFirst()
}

/** What made the capsule, or is making it. */
export async function findCreate(db: Db, capsuleId: string): Promise<OperationRow | undefined> {
  return await db
    .selectFrom('operations')
    .selectAll()
    .where('capsule_id', '=', capsuleId)
    .where('kind', '=', 'create')
    .executeTakeFirst()
}

/** Whether somebody is at work on the capsule right now. */
export async function hasLiveOperation(db: Db, capsuleId: string): Promise<boolean> {
  const row = await db
    .selectFrom('operations')
    .select('id')
    .where('capsule_id', '=', capsuleId)
    .where('state', '=', 'running')
    .where('lease_until', '>', sql<Date>`now()`)
    .executeTakeFirst()
  return row !== undefined
}

/** Does nothing for one that has ended, so that a late renewal cannot bring it back. */
export async function renewLease(db: Db, id: string, leaseMs: number): Promise<void> {
  await db
    .updateTable('operations')
    .set({ lease_until: leaseEnd(leaseMs) })
    .where('id', '=', id)
    .where('state', '=', 'running')
    .execute()
}

/**
 * Takes over one operation whose runner died; `undefined` when there is none. Never one of `own`, which the caller runs itself:
 * those only lost their lease while the database was away.
 */
export async function takeExpired(
  db: Db,
  leaseMs: number,
  own: readonly string[] = [],
): Promise<OperationRow | undefined> {
  return await db
    .updateTable('operations')
    .set((eb) => ({ lease_until: leaseEnd(leaseMs), attempts: eb('attempts', '+', 1), updated_at: new Date() }))
    .where('id', '=', (eb) =>
      eb
        .selectFrom('operations')
        .select('id')
        .where('state', '=', 'running')
        .where('lease_until', '<', sql<Date>`now()`)
        .where(sql<SqlBool>`NOT id = ANY (${own}::text[])`)
        .orderBy('lease_until')
        .limit(1)
        .forUpdate()
        .skipLocked(),
    )
    .returningAll()
    .executeTakeFirst()
}

/** Notes something for whoever carries the operation out after this process. */
export async function setParams(db: Db, id: string, params: Readonly<Record<string, unknown>>): Promise<void> {
  await db
    .updateTable('operations')
    .set({ params: JSON.stringify(params) })
    .where('id', '=', id)
    .execute()
}

/** Whether another operation may have changed what the capsule runs on since this one was asked for. */
export async function hasMovedSince(db: Db, operation: OperationRow): Promise<boolean> {
  const row = await db
    .selectFrom('operations')
    .select('id')
    .where('capsule_id', '=', operation.capsule_id)
    .where('id', '!=', operation.id)
    .where('kind', 'in', ['pause', 'resume', 'rollback'])
    .where('state', '!=', 'failed')
    .where('updated_at', '>=', operation.created_at)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/** How an operation ends: with `error` it failed, without it succeeded. */
export interface Conclusion {
  readonly error?: ErrorBody['error']
  /** What every later answer is made of. */
  readonly result?: Readonly<Record<string, unknown>>
  /** Gives the idempotency key back: the same request may be tried again. */
  readonly releaseKey?: boolean
}

/** Ends an operation that runs, and tells the audit trail how. */
export async function finishOperation(db: Db, id: string, outcome: Conclusion = {}): Promise<void> {
  const finish = (tx: Db) =>
    tx
      .updateTable('operations')
      .set({
        state: outcome.error === undefined ? 'succeeded' : 'failed',
        error: outcome.error === undefined ? null : JSON.stringify(outcome.error),
        result: outcome.result === undefined ? null : JSON.stringify(outcome.result),
        updated_at: new Date(),
        ...(outcome.releaseKey === true ? { idempotency_key: null } : {}),
      })
      .where('id', '=', id)
      .where('state', '=', 'running')
      .returningAll()
      .executeTakeFirst()
  await audited(db, finish, entryOfOperation)
}

/** Holds an operation until the end of the transaction; false when it has ended already. */
export async function lockRunning(tx: Db, id: string): Promise<boolean> {
  const row = await tx
    .selectFrom('operations')
    .select('id')
    .where('id', '=', id)
    .where('state', '=', 'running')
    .forUpdate()
    .executeTakeFirst()
  return row !== undefined
}

/** The newest operation of `kinds` that runs on the capsule; not one that only waits for another. */
export async function findRunning(
  db: Db,
  capsuleId: string,
  kinds: readonly OperationKind[],
): Promise<OperationRow | undefined> {
  return await db
    .selectFrom('operations')
    .selectAll()
    .where('capsule_id', '=', capsuleId)
    .where('kind', 'in', kinds)
    .where('state', '=', 'running')
    .where(sql<SqlBool>`NOT coalesce(params, '{}') ? 'joins'`)
    .orderBy('created_at', 'desc')
    .executeTakeFirst()
}

/** Lets a move that is under way leave the capsule hibernated. @returns it, where it was to wake that */
export async function stopMoveWaking(tx: Db, capsuleId: string): Promise<OperationRow | undefined> {
  return await tx
    .updateTable('operations')
    .set({ params: sql`params || '{"wakes": false}'` })
    .where('capsule_id', '=', capsuleId)
    .where('kind', '=', 'move')
    .where('state', '=', 'running')
    .where(sql<SqlBool>`params ->> 'wakes' = 'true'`)
    .returningAll()
    .executeTakeFirst()
}

/** An operation that runs, held until the end of the transaction; `undefined` when it has ended. */
export async function lockOperation(tx: Db, id: string): Promise<OperationRow | undefined> {
  const running = tx.selectFrom('operations').selectAll().where('id', '=', id).where('state', '=', 'running')
  return await running.forUpdate().executeTakeFirst()
}

/** The newest of a capsule, ended or not; none that only waited for another. */
export async function findNewest(db: Db, capsuleId: string, kind: OperationKind): Promise<OperationRow | undefined> {
  const ofCapsule = db.selectFrom('operations').selectAll().where('capsule_id', '=', capsuleId)
  const own = ofCapsule.where('kind', '=', kind).where(sql<SqlBool>`NOT coalesce(params, '{}') ? 'joins'`)
  return await own.orderBy('created_at', 'desc').limit(1).executeTakeFirst()
}

/** Hosts that a capsule was to wake on, in the last hour, and that could not have it. */
export async function listFailedHosts(db: Db, capsuleId: string): Promise<ReadonlySet<string>> {
  const rows = await db
    .selectFrom('operations')
    .select(sql<string | null>`params ->> 'hostId'`.as('host_id'))
    .where('capsule_id', '=', capsuleId)
    .where('kind', '=', 'resume')
    .where('state', '=', 'failed')
    .where('updated_at', '>', sql<Date>`now() - interval '1 hour'`)
    .execute()
  return new Set(rows.flatMap(({ host_id: hostId }) => hostId ?? []))
}

/** The fork that makes, or made, `copyId` out of `parentId`. */
export async function findFork(db: Db, parentId: string, copyId: string): Promise<OperationRow | undefined> {
  return await db
    .selectFrom('operations')
    .selectAll()
    .where('capsule_id', '=', parentId)
    .where('kind', '=', 'fork')
    .where(sql<SqlBool>`params -> 'copies' @> ${JSON.stringify([copyId])}::jsonb`)
    .executeTakeFirst()
}

/** Operations of `kind` that run on the capsule for this checkpoint. */
export async function findForCheckpoint(
  db: Db,
  capsuleId: string,
  kind: OperationKind,
  checkpointId: string,
): Promise<OperationRow | undefined> {
  return await db
    .selectFrom('operations')
    .selectAll()
    .where('capsule_id', '=', capsuleId)
    .where('kind', '=', kind)
    .where('state', '=', 'running')
    .where(sql<SqlBool>`params ->> 'checkpointId' = ${checkpointId}`)
    .executeTakeFirst()
}

/** Leases are in the database's time, so clocks of several control planes need not agree. */
function leaseEnd(leaseMs: number) {
  return sql<Date>`now() + ${leaseMs} * interval '1 millisecond'`
}
