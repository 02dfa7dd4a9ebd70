import { AppError } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { findByKey, findRunning, insertOperation } from '../../store/operations.js'
import type { Actor, CapsuleRow, OperationKind, OperationRow } from '../../store/schema.js'
import { type PoolUsageDeps, refreshPoolUsages } from '../hosts/index.js'
import { isPoolFull } from '../limits/index.js'
import { LEASE_MS, newOperation, type Operations, throwFailure } from './operations.js'

interface SubmitDeps extends PoolUsageDeps {
  readonly operations: Operations
}

/** A request that is to become an operation. */
export interface Submission {
  readonly teamId: string
  readonly kind: OperationKind
  /** Of all that makes it the same request. */
  readonly hash: string
  readonly key: string | undefined
  /** Who asks. @default the platform itself */
  readonly actor?: Actor | undefined
}

interface Submitted {
  readonly operation: OperationRow
  /** It was made now, and nobody carries it out yet. */
  readonly isNew: boolean
}

/**
 * Makes an operation of a request, in one transaction with what it changes at once. The same key gives the operation that it
 * gave before. `attempt` answers `undefined` when somebody else was faster, and is asked again.
 * @throws AppError `idempotency_mismatch`, and those of `attempt`
 */
export async function submit(
  { db, host, limits, operations }: SubmitDeps,
  submission: Submission,
  attempt: (tx: Db) => Promise<Submitted | undefined>,
): Promise<OperationRow> {
  for (let isMeasured = false; ; ) {
    const earlier = await findEarlier(db, submission)
    if (earlier !== undefined) return earlier
    try {
      const submitted = await db.transaction().execute(attempt)
      if (submitted?.isNew === true) operations.start(submitted.operation)
      if (submitted !== undefined) return submitted.operation
    } catch (error) {
      // The same request, a moment earlier, may be what made this one impossible.
      const earlier = AppError.is(error) ? await findEarlier(db, submission) : undefined
      if (earlier !== undefined) return earlier
      if (isMeasured || !isPoolFull(error)) throw error
      // What was deleted since the last measurement may have made room.
      await refreshPoolUsages({ db, host, limits })
      isMeasured = true
    }
  }
}

/** The operation that the key gave before. @throws AppError `idempotency_mismatch` */
export async function findEarlier(db: Db, { teamId, kind, key, hash }: Submission): Promise<OperationRow | undefined> {
  const earlier = key === undefined ? undefined : await findByKey(db, teamId, kind, key)
  if (earlier !== undefined && earlier.request_hash !== hash) {
    throw new AppError('idempotency_mismatch', 'This Idempotency-Key was used with a different request.')
  }
  return earlier
}

/** Writes the operation of a request, inside its transaction. */
export async function insertNew(
  tx: Db,
  { kind, hash, key, actor }: Submission,
  capsule: CapsuleRow,
  params?: Readonly<Record<string, unknown>>,
): Promise<Submitted> {
  const operation = await insertOperation(tx, newOperation(kind, capsule, { hash, key, params, actor }), LEASE_MS)
  if (operation === undefined) {
    throw new AppError('conflict', 'Another request uses this Idempotency-Key right now.')
  }
  return { operation, isNew: true }
}

/**
 * The operation of this kind that is under way on the capsule already. A request with a key gets one of its own, which ends
 * as the other does, so that the key is remembered.
 */
export async function joinRunning(tx: Db, submission: Submission, capsule: CapsuleRow): Promise<Submitted | undefined> {
  const running = await findRunning(tx, capsule.id, [submission.kind])
  if (running === undefined) return undefined
  if (submission.key === undefined) return { operation: running, isNew: false }
  return await insertNew(tx, submission, capsule, { joins: running.id })
}

/**
 * The result of an operation that ended within `waitMs`, else `undefined`.
 * @throws AppError why it failed, when it did
 */
export async function resultOf(
  operations: Operations,
  operation: OperationRow,
  waitMs: number,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const ended = operation.state === 'running' ? await operations.wait(operation.id, waitMs) : operation
  throwFailure(ended)
  return ended === undefined ? undefined : (ended.result ?? {})
}
