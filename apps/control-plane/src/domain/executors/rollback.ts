import { AppError } from '@wrenn/base'
import { nextState } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import { patchCapsule, transition } from '../../store/capsules.js'
import { hasMovedSince, setParams } from '../../store/operations.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { toCapsule } from '../capsule-view.js'
import { lifecycleTimingsOf, savedFactsOf } from '../host-facts.js'
import type { Executor } from '../operations.js'
import { checkpointIdOf, isAgain, needLasting } from './checkpoints.js'
import { conclude, type ExecutorDeps, failure, lockLasting, overtaken, truthOf } from './context.js'

/** Lets the host put a capsule back to a point in time. */
export function rollbackExecutor(deps: ExecutorDeps): Executor {
  const { db } = deps
  return async (operation) => {
    const checkpointId = checkpointIdOf(operation)
    let capsule: Capsule | undefined
    try {
      await needLasting(deps, operation)
      capsule = (await doneBefore(deps, operation)) ?? (await rollBackOnHost(deps, operation))
    } catch (thrown) {
      const error = AppError.from(thrown)
      return isAgain(deps, operation, error) ? 'retry' : await conclude(db, operation, async () => failure(error))
    }
    return await conclude(db, operation, async (tx) => {
      const row = await lockLasting(tx, operation.capsule_id)
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

async function rollBackOnHost(
  { host, lifecycleTimeoutMs: timeoutMs }: ExecutorDeps,
  operation: OperationRow,
): Promise<Capsule | undefined> {
  const request = { capsuleId: operation.capsule_id, checkpointId: checkpointIdOf(operation) }
  return (await host.call((client) => client.rollbackCapsule(request, { timeoutMs }))).capsule
}

/**
 * The capsule, if a predecessor that died had it put back already. Doing it over would take away what was done in it since;
 * so what a rollback changes in the host's report is noted before the host is asked.
 */
async function doneBefore({ db, host }: ExecutorDeps, operation: OperationRow): Promise<Capsule | undefined> {
  const checkpointId = checkpointIdOf(operation)
  const now = await truthOf(host, operation.capsule_id)
  if (now === undefined) return undefined
  const { stoodOn, mark } = operation.params ?? {}
  if (typeof mark !== 'string') {
    await setParams(db, operation.id, { ...operation.params, stoodOn: now.checkpointId, mark: markOf(now) })
    return undefined
  }
  if (now.checkpointId !== checkpointId) return undefined
  if (stoodOn !== checkpointId) return now
  // It stood there before: only a trace that nothing else can have left tells.
  return markOf(now) !== mark && !(await hasMovedSince(db, operation)) ? now : undefined
}

function markOf({ savedGeneration, lifecycleTimings }: Capsule): string {
  return JSON.stringify([Number(savedGeneration), lifecycleTimings.map(({ step, ms }) => [step, ms])])
}
