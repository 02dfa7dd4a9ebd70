import type { OperationKind } from '../../store/schema.js'
import {
  createExecutor,
  destroyExecutor,
  forkExecutor,
  hibernateExecutor,
  pauseExecutor,
  resumeExecutor,
} from '../capsules/index.js'
import type { Executor, ExecutorDeps } from '../operations/index.js'
import { checkpointExecutor, deleteCheckpointExecutor, rollbackExecutor, snapshotExecutor } from '../points/index.js'

/** How each kind of operation is carried out on a host. */
export function createExecutors(deps: ExecutorDeps) {
  return {
    create: createExecutor(deps),
    destroy: destroyExecutor(deps),
    pause: pauseExecutor(deps),
    resume: resumeExecutor(deps),
    hibernate: hibernateExecutor(deps),
    fork: forkExecutor(deps),
    checkpoint: checkpointExecutor(deps),
    delete_checkpoint: deleteCheckpointExecutor(deps),
    rollback: rollbackExecutor(deps),
    snapshot: snapshotExecutor(deps),
  } satisfies Partial<Record<OperationKind, Executor>>
}
