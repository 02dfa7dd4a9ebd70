import { AppError } from '@wrenn/base'
import { findAnyCapsule, lockCapsule, transition } from '../../store/capsules.js'
import { listCheckpoints } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import { type Conclusion, findRunning, setParams } from '../../store/operations.js'
import type { CapsuleRow, OperationKind, OperationRow } from '../../store/schema.js'
import { addLeftover, beginStored, finishStored } from '../../store/stored-states.js'
import {
  conclude,
  type Executor,
  type ExecutorDeps,
  failure,
  isSilence,
  logFailure,
  overtaken,
} from '../operations/index.js'
import { storeKeyOf, TRANSFER_TIMEOUT_MS, tryToFree } from '../stored/index.js'
import { answer, pauseForOperation } from './execute-pause-resume.js'

const WHAT = 'it was stored'
/** What works on the files that would be freed. */
const AT_WORK: readonly OperationKind[] = [
  'fork',
  'checkpoint',
  'delete_checkpoint',
  'rollback',
  'snapshot',
  'atomic_exec',
]

/** @throws AppError `invalid_state` for a capsule with checkpoints, `conflict` while something works on its files */
export async function requireStorable(tx: Db, { id }: CapsuleRow): Promise<void> {
  const checkpoints = await listCheckpoints(tx, id, { all: true })
  if (checkpoints.length > 0) {
    const message = `The capsule has checkpoints, which stay on its host: delete them first (${checkpoints.length}).`
    throw new AppError('invalid_state', message, { details: { checkpoints: checkpoints.length } })
  }
  const other = await findRunning(tx, id, AT_WORK)
  if (other === undefined) return
  throw new AppError('conflict', `A ${other.kind} of the capsule is under way: hibernate it when that has ended.`)
}

interface Begun {
  readonly row: CapsuleRow
  readonly stateId: string
  readonly storedLayers: readonly string[]
  /** Of the row, as long as nobody has used the capsule. */
  readonly generation: number
}

/**
 * Has the host of a paused capsule store its state, and then makes that the capsule: one transaction takes it off its host, which frees its files afterwards. A capsule
 * that is used meanwhile goes on where it is.
 */
export function hibernateExecutor(deps: ExecutorDeps): Executor {
  return async (operation) => {
    const { db, host, keyring, logger } = deps
    const row = await findAnyCapsule(db, operation.capsule_id)
    if (row?.state === 'pausing') {
      const ended = await pauseForOperation(deps, operation, row)
      if (ended !== undefined) return ended
    }
    // A proxy alone has no key: a control plane takes it over.
    if (keyring.isEmpty) return 'retry'
    let begun: Begun | Conclusion | undefined
    try {
      begun = await begin(deps, operation)
      if (begun === undefined) return 'retry'
      if (!('stateId' in begun)) {
        const ended = begun
        return await conclude(db, operation, async () => ended)
      }
      const { row: stored, stateId, storedLayers } = begun
      const key = storeKeyOf(keyring, { team_id: stored.team_id, sealed_by: sealedByOf(operation, keyring.sealPrefix) })
      const request = { capsuleId: stored.id, stateId, key, storedLayers: [...storedLayers] }
      const { bytes, layers, sentBytes } = await host.call((client) =>
        client.storeCapsule(request, { timeoutMs: TRANSFER_TIMEOUT_MS }),
      )
      const { generation } = begun
      let isPutAway = false
      await conclude(db, operation, async (tx) => {
        await finishStored(tx, stateId, { bytes: Number(bytes), layers, generation })
        const ended = await putAway(tx, stored.id, { stateId, generation })
        isPutAway = ended.error === undefined
        return ended
      })
      if (!isPutAway) return 'done'
      const sizes = { bytes: Number(bytes), sentBytes: Number(sentBytes) }
      logger.info({ capsuleId: stored.id, stateId, ...sizes }, 'capsule.hibernated')
      host.forget(stored.id)
      await tryToFree(deps, host, stored.host_id, stored.id)
      return 'done'
    } catch (thrown) {
      const error = AppError.from(thrown)
      logFailure(logger, operation, error)
      if (isSilence(error, operation)) return 'retry'
      return await conclude(db, operation, async () => failure(error))
    }
  }
}

/** `undefined` while what the team has in the store is cleared up. */
async function begin({ db, keyring }: ExecutorDeps, operation: OperationRow): Promise<Begun | Conclusion | undefined> {
  const { params } = operation
  const stateId = String(params?.stateId)
  return await db.transaction().execute(async (tx) => {
    const row = await lockCapsule(tx, operation.capsule_id)
    if (row?.state !== 'paused') return failure(overtaken(row, WHAT))
    const at = params?.at
    if (typeof at === 'number' && at !== row.generation) return failure(used())
    await requireStorable(tx, row)
    const sealed_by = sealedByOf(operation, keyring.sealPrefix)
    const state = { id: stateId, team_id: row.team_id, capsule_id: row.id, sealed_by }
    const storedLayers = await beginStored(tx, state)
    if (storedLayers === undefined) return undefined
    if (typeof at === 'number') return { row, stateId, storedLayers, generation: at }
    const moved = await transition(tx, row, 'hibernate')
    if (moved === undefined) return failure(used())
    await setParams(tx, operation.id, { ...params, at: moved.generation, sealedBy: sealed_by })
    return { row: moved, stateId, storedLayers, generation: moved.generation }
  })
}

/** The key may be another one when it is taken over. */
function sealedByOf({ params }: OperationRow, current: string): string {
  return typeof params?.sealedBy === 'string' ? params.sealedBy : current
}

/** The state in the store is the capsule from now on; what its host has is to be freed. */
async function putAway(
  tx: Db,
  id: string,
  { stateId, generation }: { readonly stateId: string; readonly generation: number },
): Promise<Conclusion> {
  const row = await lockCapsule(tx, id)
  if (row?.state !== 'paused') return failure(overtaken(row, WHAT))
  if (row.generation !== generation) return failure(used())
  try {
    await requireStorable(tx, row)
  } catch (error) {
    return failure(AppError.from(error))
  }
  const gone = await transition(tx, row, 'hibernated', {
    host_id: null,
    stored_state: stateId,
    fallback_state: null,
    guest_address: null,
    desired_state: 'paused',
    observed_state: 'absent',
    observed_at: new Date(),
    disk_bytes: 0,
  })
  if (gone === undefined) return failure(used())
  await addLeftover(tx, { state_id: stateId, capsule_id: id, host_id: row.host_id, attempt: 0 })
  return answer(gone)
}

function used(): AppError {
  return new AppError('conflict', 'The capsule was used while its state was being stored: it goes on where it is.')
}
