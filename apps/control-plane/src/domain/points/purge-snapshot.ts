import { AppError } from '@wrenn/base'
import type { HostCalls } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import { patchSnapshot } from '../../store/snapshots.js'

const DELETE_TIMEOUT_MS = 30_000

interface PurgeDeps {
  readonly db: Db
  readonly host: HostCalls
}

/** Removes the files of a snapshot that is not offered, and notes that. @throws AppError when the host did not do it */
export async function purgeSnapshot({ db, host }: PurgeDeps, snapshotId: string): Promise<void> {
  try {
    await host.call((client) => client.deleteSnapshot({ snapshotId }, { timeoutMs: DELETE_TIMEOUT_MS }))
  } catch (error) {
    if (!AppError.is(error, 'template_not_found')) throw error // of a host that was removed
  }
  await patchSnapshot(db, snapshotId, { state: 'deleted' })
}
