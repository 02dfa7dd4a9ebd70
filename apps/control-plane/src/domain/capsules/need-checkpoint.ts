import { AppError } from '@wrenn/base'
import { findCheckpoint, lockCheckpoint } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import type { CheckpointRow } from '../../store/schema.js'

/** By id or name. @throws AppError `checkpoint_not_found`, `invalid_state` when it is not there yet or goes away */
export async function needCheckpoint(
  db: Db,
  capsuleId: string,
  ref: string,
  also?: CheckpointRow['state'],
): Promise<CheckpointRow> {
  const checkpoint = await findCheckpoint(db, capsuleId, ref)
  if (checkpoint === undefined) throw notFound(ref)
  return usable(checkpoint, also)
}

/** The same, and nobody else changes it until the end of the transaction. Who holds its capsule, too, takes that first. */
export async function holdCheckpoint(
  tx: Db,
  capsuleId: string,
  ref: string,
  also?: CheckpointRow['state'],
): Promise<CheckpointRow> {
  const found = await needCheckpoint(tx, capsuleId, ref, also)
  const held = await lockCheckpoint(tx, found.id)
  if (held === undefined) throw notFound(ref)
  return usable(held, also)
}

function usable(checkpoint: CheckpointRow, also: CheckpointRow['state'] | undefined): CheckpointRow {
  const { state, name } = checkpoint
  if (state === 'ready' || state === also) return checkpoint
  const message = state === 'creating' ? `The checkpoint ${name} is still being made.` : `${name} is being deleted.`
  throw new AppError('invalid_state', message, { details: { state } })
}

function notFound(ref: string): AppError {
  return new AppError('checkpoint_not_found', `The capsule has no checkpoint ${ref}.`)
}
