import { AppError } from '@wrenn/base'
import type { Checkpoint } from '@wrenn/protocol/host'
import { lockCapsule, patchCapsule } from '../../store/capsules.js'
import { lockCheckpoint, removeCheckpoint, setCheckpointState } from '../../store/checkpoints.js'
import type { OperationRow } from '../../store/schema.js'
import { checkpointFactsOf } from '../hosts/index.js'
import {
  conclude,
  type Executor,
  type ExecutorDeps,
  failure,
  isLasting,
  isSilence,
  lockLasting,
  logFailure,
  overtaken,
} from '../operations/index.js'
import { toCheckpoint } from './checkpoint-view.js'

/** The checkpoint that an operation is about; an operation without one is a bug of ours. */
export function checkpointIdOf(operation: OperationRow): string {
  const id = operation.params?.checkpointId
  if (typeof id !== 'string') throw new Error(`${operation.kind} without its checkpoint`)
  return id
}

/** Lets the host save a point in time. */
export function checkpointExecutor(deps: ExecutorDeps): Executor {
  const { db, host, lifecycleTimeoutMs: timeoutMs } = deps
  return async (operation) => {
    const checkpointId = checkpointIdOf(operation)
    const capsuleId = operation.capsule_id
    let saved: Checkpoint | undefined
    try {
      await needLasting(deps, operation)
      const answer = await host.call((client) => client.createCheckpoint({ capsuleId, checkpointId }, { timeoutMs }))
      saved = answer.checkpoint
    } catch (thrown) {
      const error = AppError.from(thrown)
      if (isAgain(deps, operation, error)) return 'retry'
      await conclude(db, operation, async (tx) => {
        await tx.deleteFrom('checkpoints').where('id', '=', checkpointId).execute()
        return failure(error)
      })
      // It was never offered to anybody; a host that made it all the same must not keep it.
      await host.call((client) => client.deleteCheckpoint({ capsuleId, checkpointId }, { timeoutMs })).catch(() => {})
      return 'done'
    }
    return await conclude(db, operation, async (tx) => {
      const row = await lockLasting(tx, capsuleId)
      const checkpoint = await lockCheckpoint(tx, checkpointId)
      if (row === undefined || checkpoint === undefined) return failure(overtaken(undefined, 'the checkpoint was made'))
      const ready = await tx
        .updateTable('checkpoints')
        .set({
          state: 'ready',
          parent_id: row.checkpoint_id,
          ...(saved === undefined ? {} : checkpointFactsOf(saved)),
        })
        .where('id', '=', checkpointId)
        .returningAll()
        .executeTakeFirstOrThrow()
      await patchCapsule(tx, capsuleId, { checkpoint_id: checkpointId })
      const pauseWindow = saved === undefined ? {} : { pause_window_ms: saved.pauseWindowMs }
      return { result: { checkpoint: { ...toCheckpoint(ready, checkpointId), ...pauseWindow } } }
    })
  }
}

/** Lets the host drop a point in time. */
export function deleteCheckpointExecutor(deps: ExecutorDeps): Executor {
  const { db, host, lifecycleTimeoutMs: timeoutMs } = deps
  return async (operation) => {
    const checkpointId = checkpointIdOf(operation)
    const capsuleId = operation.capsule_id
    let freed = 0
    try {
      await needLasting(deps, operation)
      const answer = await host.call((client) => client.deleteCheckpoint({ capsuleId, checkpointId }, { timeoutMs }))
      freed = Number(answer.freedBytes)
    } catch (thrown) {
      const error = AppError.from(thrown)
      if (isAgain(deps, operation, error)) return 'retry'
      return await conclude(db, operation, async (tx) => {
        await setCheckpointState(tx, checkpointId, 'ready')
        return failure(error)
      })
    }
    return await conclude(db, operation, async (tx) => {
      await lockCapsule(tx, capsuleId)
      const checkpoint = await lockCheckpoint(tx, checkpointId)
      if (checkpoint !== undefined) await removeCheckpoint(tx, checkpoint)
      return { result: { freed_bytes: freed } }
    })
  }
}

/** @throws AppError `invalid_state` */
export async function needLasting({ db }: ExecutorDeps, { capsule_id, kind }: OperationRow): Promise<void> {
  if (await isLasting(db, capsule_id)) return
  throw new AppError(
    'invalid_state',
    `The capsule ended, or its host fell silent, before the ${kind.replace('_', ' ')}.`,
  )
}

/** Whether the failure may be over soon, so that the operation is tried again instead of concluded; logs it either way. */
export function isAgain({ logger }: ExecutorDeps, operation: OperationRow, error: AppError): boolean {
  logFailure(logger, operation, error)
  return isSilence(error, operation)
}
