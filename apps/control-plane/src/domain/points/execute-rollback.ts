import { AppError } from '@wrenn/base'
import { nextState } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import { type CapsulePatch, findAnyCapsule, patchCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { hasMovedSince, setParams } from '../../store/operations.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { carryPendingEgress, fromDiskOf, settledIn, settledTruthOf, toCapsule } from '../capsules/index.js'
import { exitOf, factsOf, lifecycleTimingsOf } from '../hosts/index.js'
import {
  conclude,
  type Executor,
  type ExecutorDeps,
  failure,
  lockLasting,
  overtaken,
  truthOf,
} from '../operations/index.js'
import { checkpointIdOf, isAgain, needLasting } from './execute-checkpoints.js'

/** What a rollback keeps of its request. */
export interface RollbackParams {
  readonly checkpointId: string
  /** Its guest had ended: the rollback takes the capsule out of that, through `resuming`. */
  readonly isEnded: boolean
  /** Absent: to the checkpoint's memory, too. */
  readonly from?: 'disk'
}

/** Lets the host put a capsule back to a point in time. */
export function rollbackExecutor(deps: ExecutorDeps): Executor {
  const { db } = deps
  return async (operation) => {
    let capsule: Capsule | undefined
    try {
      await needLasting(deps, operation)
      capsule = (await doneBefore(deps, operation)) ?? (await rollBackOnHost(deps, operation))
    } catch (thrown) {
      const error = AppError.from(thrown)
      return isAgain(deps, operation, error) ? 'retry' : await giveUp(deps, operation, error)
    }
    return await conclude(db, operation, async (tx) => {
      const row = await lockLasting(tx, operation.capsule_id)
      if (row === undefined) return failure(overtaken(undefined, 'it was rolled back'))
      const moved = (await arrive(tx, operation, row, capsule)) ?? row
      if (moved.state === 'error') return failure(overtaken(moved, 'its rollback was known to be done'))
      return { result: { capsule: toCapsule(moved, { lifecycleTimings: true }) } }
    })
  }
}

/** Writes that the host has put the capsule back. */
async function arrive(
  tx: Db,
  operation: OperationRow,
  row: CapsuleRow,
  capsule: Capsule | undefined,
): Promise<CapsuleRow | undefined> {
  const patch = {
    checkpoint_id: checkpointIdOf(operation),
    ...(capsule === undefined ? {} : { ...factsOf(capsule), ...lifecycleTimingsOf(capsule) }),
    ...(row.state === 'running' ? { last_active_at: new Date() } : {}),
  }
  // The guest may have ended after the rollback was asked for: then the host found it so.
  if (row.state === 'error') {
    const leaving = await transition(tx, row, 'rollback')
    return leaving && (await settle(tx, leaving, capsule, patch))
  }
  if (isLeavingEnd(operation, row)) return await settle(tx, row, capsule, patch)
  // A pause or resume that began meanwhile goes on from the new state; its own end moves the row.
  return isStill(row) ? await transition(tx, row, 'rollback', patch) : await patchCapsule(tx, row.id, patch)
}

/** Takes the row of a capsule that had ended to where the capsule is now. */
async function settle(
  tx: Db,
  row: CapsuleRow,
  capsule: Capsule | undefined,
  patch: CapsulePatch,
): Promise<CapsuleRow | undefined> {
  const state = capsule?.state ?? 'running'
  if (state === 'running') return await transition(tx, row, 'started', { ...patch, ...settledIn(state) })
  if (state === 'paused') return await transition(tx, row, 'paused', { ...patch, ...settledIn(state), exit: null })
  const exit = JSON.stringify(exitOf(capsule?.exit))
  return await transition(tx, row, 'exited', { ...patch, exit, observed_state: 'error', stopped_at: new Date() })
}

/** The host refused or failed. A capsule that was on its way out of its end is where the host says. */
async function giveUp({ db, host }: ExecutorDeps, operation: OperationRow, error: AppError): Promise<'done' | 'retry'> {
  const before = await findAnyCapsule(db, operation.capsule_id)
  if (before === undefined || !isLeavingEnd(operation, before)) {
    return await conclude(db, operation, async () => failure(error))
  }
  const truth = await settledTruthOf(host, operation.capsule_id)
  if (truth === 'unsettled') return 'retry'
  return await conclude(db, operation, async (tx) => {
    const row = await lockLasting(tx, operation.capsule_id)
    if (row === undefined || !isLeavingEnd(operation, row)) return failure(error)
    if (truth !== undefined) await settle(tx, row, truth, factsOf(truth))
    else await transition(tx, row, 'lost', { observed_state: 'absent', observed_at: new Date() })
    return failure(error)
  })
}

function isLeavingEnd({ params }: OperationRow, { state }: CapsuleRow): boolean {
  return params?.isEnded === true && state === 'resuming'
}

function isStill(row: CapsuleRow): boolean {
  return nextState(row.state, 'rollback') === row.state
}

async function rollBackOnHost(deps: ExecutorDeps, operation: OperationRow): Promise<Capsule | undefined> {
  const { db, host, lifecycleTimeoutMs: timeoutMs } = deps
  const row = await findAnyCapsule(db, operation.capsule_id)
  await carryPendingEgress(deps, row)
  const fromDisk = row === undefined ? {} : fromDiskOf(operation.params, row)
  const request = { capsuleId: operation.capsule_id, checkpointId: checkpointIdOf(operation), ...fromDisk }
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
