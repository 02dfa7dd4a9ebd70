import { AppError } from '@wrenn/base'
import type { Snapshot } from '@wrenn/protocol/host'
import type { OperationRow } from '../../store/schema.js'
import { findSnapshot, giveUpSnapshot, lockSnapshot, patchSnapshot } from '../../store/snapshots.js'
import { snapshotFactsOf } from '../hosts/index.js'
import {
  conclude,
  type Executor,
  type ExecutorDeps,
  failure,
  isLasting,
  isSilence,
  logFailure,
} from '../operations/index.js'
import { purgeSnapshot } from './purge-snapshot.js'
import { snapshotTemplate } from './template-view.js'

/** What is to be made, and of which point in time; empty: the capsule as it is. */
function paramsOf(operation: OperationRow): { readonly snapshotId: string; readonly checkpointId: string } {
  const { snapshotId, checkpointId = '' } = operation.params ?? {}
  if (typeof snapshotId !== 'string') throw new Error('a snapshot operation without its snapshot')
  return { snapshotId, checkpointId: String(checkpointId) }
}

/** Lets the host make a template of a capsule. */
export function snapshotExecutor({ db, host, logger, lifecycleTimeoutMs: timeoutMs }: ExecutorDeps): Executor {
  return async (operation) => {
    const { snapshotId, checkpointId } = paramsOf(operation)
    const request = { capsuleId: operation.capsule_id, snapshotId, checkpointId }
    let made: Snapshot | undefined
    try {
      if (!(await isLasting(db, request.capsuleId))) {
        throw new AppError('invalid_state', 'The capsule ended, or its host fell silent, before the snapshot.')
      }
      made = (await host.call((client) => client.createSnapshot(request, { timeoutMs }))).snapshot
    } catch (thrown) {
      const error = AppError.from(thrown)
      logFailure(logger, operation, error)
      if (isSilence(error, operation)) return 'retry'
      await conclude(db, operation, async (tx) => {
        await giveUpSnapshot(tx, snapshotId)
        return failure(error)
      })
      // Another process that carried this out, too, may have come to another end: then it is somebody's data.
      if ((await findSnapshot(db, snapshotId))?.state !== 'deleting') return 'done'
      // It was never offered to anybody; a host that made it all the same must not keep it, which the next comparison looks after.
      await purgeSnapshot({ db, host }, snapshotId).catch(() => {})
      return 'done'
    }
    return await conclude(db, operation, async (tx) => {
      if ((await lockSnapshot(tx, snapshotId)) === undefined) throw new Error(`the row of ${snapshotId} is gone`)
      const row = await patchSnapshot(tx, snapshotId, {
        state: 'ready',
        ...(made === undefined ? {} : { ...snapshotFactsOf(made), ...basedOn(made) }),
      })
      return row === undefined ? {} : { result: { template: snapshotTemplate(row) } }
    })
  }
}

function basedOn(made: Snapshot) {
  const versions = {
    engine: made.engine,
    engine_version: made.engineVersion,
    kernel_version: made.kernelVersion,
    agent_version: made.agentVersion,
  }
  const known = Object.entries(versions).filter(([, version]) => version !== '')
  return {
    versions: JSON.stringify(Object.fromEntries(known)),
    ...(made.template === '' ? {} : { template: made.template }),
  }
}
