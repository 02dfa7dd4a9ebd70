import { errorText } from '@wrenn/base'
import { findAnyCapsule, lockCapsule, transition } from '../../store/capsules.js'
import { removeCheckpoints } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'
import { conclude, destroyOnHost, type Executor, type ExecutorDeps, fieldsOf } from '../operations/index.js'

/** Ends a capsule on its host; tried again until the host answers, for the wish is recorded. */
export function destroyExecutor({ db, host, logger }: ExecutorDeps): Executor {
  return async (operation) => {
    const row = await findAnyCapsule(db, operation.capsule_id)
    // Of one that is in the store alone no host has anything that is not freed anyway.
    const isOnHost = row === undefined || row.host_id !== null || row.stored_state === null || host.only !== undefined
    try {
      if (isOnHost) await destroyOnHost(host, operation.capsule_id)
    } catch (error) {
      const level = operation.attempts > 1 ? 'debug' : 'warn'
      logger[level]({ ...fieldsOf(operation), error: errorText(error) }, 'capsule.destroy_deferred')
      return 'retry'
    }
    return await conclude(db, operation, async (tx) => {
      const row = await lockCapsule(tx, operation.capsule_id)
      if (row !== undefined) await writeDestroyed(tx, row)
      return {}
    })
  }
}

/** The host has nothing of the capsule any more; its checkpoints went with it, and so does what is in the store. */
export async function writeDestroyed(db: Db, row: CapsuleRow): Promise<void> {
  const gone = await transition(db, row, 'destroyed', {
    observed_state: 'absent',
    stopped_at: new Date(),
    disk_bytes: 0,
    checkpoint_id: null,
    stored_state: null,
    fallback_state: null,
  })
  if (gone !== undefined) await removeCheckpoints(db, row.id)
}
