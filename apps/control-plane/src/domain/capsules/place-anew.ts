import { AppError } from '@wrenn/base'
import { isNeverSent } from '../../host/errors.js'
import { lockCapsule, patchCapsule } from '../../store/capsules.js'
import { goneAmong } from '../../store/hosts.js'
import { lockRunning, setParams } from '../../store/operations.js'
import type { OperationRow } from '../../store/schema.js'
import type { ExecutorDeps } from '../operations/index.js'

/**
 * Gives a create to another host, once nothing of it can run where it was given to: that host was removed, or no attempt has come to it. What each attempt
 * came to is noted after it, so one whose process died counts as one that may have come there.
 * @returns the operation as it goes on, on another host; `undefined`: it stays where it is
 */
export async function placeAnew(
  deps: Pick<ExecutorDeps, 'db' | 'host' | 'placement'>,
  operation: OperationRow,
  error: AppError,
): Promise<OperationRow | undefined> {
  const { db, host: hosts, placement } = deps
  const { id, attempts, params, capsule_id: capsuleId } = operation
  if (hosts.only !== undefined || params?.mayMove !== true || typeof params.hostId !== 'string') return undefined
  const unsent = typeof params.unsent === 'number' ? params.unsent : 0
  const isUnsent = isNeverSent(error) && unsent === attempts - 1
  const isGone = (await goneAmong(db, [params.hostId])).has(params.hostId)
  if (!isUnsent && !isGone) return undefined
  const not = new Set([...stringsOf(params.not), params.hostId])
  try {
    return await db.transaction().execute(async (tx) => {
      if (!(await lockRunning(tx, id))) return undefined
      const row = await lockCapsule(tx, capsuleId)
      if (row?.state !== 'starting') return undefined
      const { template, vcpus, memory_mib: memoryMib } = row
      const refused = new Map([...not].map((each) => [each, 'did not get it']))
      const wanted = { template, vcpus, memoryMib, hostTags: stringsOf(params.hostTags), not: refused }
      const { hostId, because } = await placement.place(tx, wanted)
      // The host that it has now was asked for nothing yet, and will be in this attempt.
      const moved = { ...params, hostId, because, not: [...not], unsent: attempts - 1 }
      await patchCapsule(tx, capsuleId, { host_id: hostId, updated_at: new Date() })
      await setParams(tx, id, moved)
      return { ...operation, params: moved }
    })
  } catch (thrown) {
    if (!AppError.is(thrown, 'no_hosts_available', 'host_unavailable')) throw thrown
    await setParams(db, id, { ...params, unsent: isUnsent ? attempts : unsent })
    return undefined
  }
}

function stringsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : []
}
