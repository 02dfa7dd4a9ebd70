import { AppError, errorText } from '@wrenn/base'
import { nextState } from '@wrenn/protocol'
import type { Capsule, Checkpoint } from '@wrenn/protocol/host'
import { lockCapsule, patchCapsule, transition } from '../../store/capsules.js'
import { lockCheckpoint, removeCheckpoint, setCheckpointState } from '../../store/checkpoints.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { toCapsule } from '../capsule-view.js'
import { toCheckpoint } from '../checkpoint-view.js'
import { checkpointFactsOf, lifecycleTimingsOf, savedFactsOf } from '../host-facts.js'
import { type Executor, fieldsOf } from '../operations.js'
import { conclude, type ExecutorDeps, failure, isLasting, isSilence, lockLasting, overtaken } from './context.js'

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

/** Lets the host put a capsule back to a point in time. */
export function rollbackExecutor(deps: ExecutorDeps): Executor {
  const { db, host, lifecycleTimeoutMs: timeoutMs } = deps
  return async (operation) => {
    const checkpointId = checkpointIdOf(operation)
    const capsuleId = operation.capsule_id
    let capsule: Capsule | undefined
    try {
      await needLasting(deps, operation)
      capsule = (await host.call((client) => client.rollbackCapsule({ capsuleId, checkpointId }, { timeoutMs })))
        .capsule
    } catch (thrown) {
      const error = AppError.from(thrown)
      return isAgain(deps, operation, error) ? 'retry' : await conclude(db, operation, async () => failure(error))
    }
    return await conclude(db, operation, async (tx) => {
      const row = await lockLasting(tx, capsuleId)
      if (row === undefined) return failure(overtaken(undefined, 'it was rolled back'))
      const patch = {
        checkpoint_id: checkpointId,
        ...(capsule === undefined ? {} : { ...savedFactsOf(capsule), ...lifecycleTimingsOf(capsule) }),
        ...(row.state === 'running' ? { last_active_at: new Date() } : {}),
      }
      // A pause or resume that began meanwhile goes on from the new state; its own end moves the row.
      const moved = isStill(row) ? await transition(tx, row, 'rollback', patch) : await patchCapsule(tx, row.id, patch)
      return { result: { capsule: toCapsule(moved ?? row, { lifecycleTimings: true }) } }
    })
  }
}

function isStill(row: CapsuleRow): boolean {
  return nextState(row.state, 'rollback') !== undefined
}

async function needLasting({ db }: ExecutorDeps, { capsule_id, kind }: OperationRow): Promise<void> {
  if (await isLasting(db, capsule_id)) return
  throw new AppError(
    'invalid_state',
    `The capsule ended, or its host fell silent, before the ${kind.replace('_', ' ')}.`,
  )
}

function isAgain({ logger }: ExecutorDeps, operation: OperationRow, error: AppError): boolean {
  const cause = errorText(error.cause)
  logger.warn(
    { ...fieldsOf(operation), code: error.code, error: error.message, cause },
    `capsule.${operation.kind}_failed`,
  )
  return isSilence(error, operation)
}
