import type { OperationKind } from '../../store/schema.js'
import type { Executor } from '../operations.js'
import { checkpointExecutor, deleteCheckpointExecutor } from './checkpoints.js'
import type { ExecutorDeps } from './context.js'
import { createExecutor } from './create.js'
import { destroyExecutor } from './destroy.js'
import { forkExecutor } from './fork.js'
import { pauseExecutor, resumeExecutor } from './pause-resume.js'
import { rollbackExecutor } from './rollback.js'
import { snapshotExecutor } from './snapshot.js'

/** How each kind of operation is carried out on a host. */
export function createExecutors(deps: ExecutorDeps) {
  return {
    create: createExecutor(deps),
    destroy: destroyExecutor(deps),
    pause: pauseExecutor(deps),
    resume: resumeExecutor(deps),
    fork: forkExecutor(deps),
    checkpoint: checkpointExecutor(deps),
    delete_checkpoint: deleteCheckpointExecutor(deps),
    rollback: rollbackExecutor(deps),
    snapshot: snapshotExecutor(deps),
  } satisfies Partial<Record<OperationKind, Executor>>
}
