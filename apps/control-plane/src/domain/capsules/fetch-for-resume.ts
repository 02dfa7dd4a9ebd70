import { AppError } from '@wrenn/base'
import { findAnyCapsule, lockCapsule, patchCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { addLeftover, findStored } from '../../store/stored-states.js'
import { savedFactsOf } from '../hosts/index.js'
import { conclude, type ExecutorDeps, failure, isSilence, logFailure } from '../operations/index.js'
import { freeLeftovers, hostOfRow, storeKeyOf, TRANSFER_TIMEOUT_MS } from '../stored/index.js'

/**
 * Has the host that was chosen for a hibernated capsule fetch its state, which makes what that has the capsule. When it cannot, the capsule is
 * hibernated as before, whatever the host has of it.
 * @returns how the operation ended; `undefined`: it goes on
 */
export async function fetchForResume(
  deps: ExecutorDeps,
  operation: OperationRow,
  row: CapsuleRow,
): Promise<'done' | 'retry' | undefined> {
  const { db, host: hosts, logger } = deps
  const { stored_state: stateId, id: capsuleId } = row
  if (stateId === null) return undefined
  // A proxy alone has no key: a control plane takes it over.
  if (deps.keyring.isEmpty) return 'retry'
  try {
    const capsule = await fetchState(deps, operation, row, stateId)
    await db.transaction().execute(async (tx) => {
      const current = await lockCapsule(tx, capsuleId)
      if (current?.stored_state !== stateId || current.state !== 'resuming') return
      const facts = capsule === undefined ? {} : savedFactsOf(capsule)
      // It goes back there if it ends before its host has a durable state of it.
      const isNeeded = capsule?.loadedFrom === stateId && capsule.loadedFromNeeded
      const from = { stored_state: null, fallback_state: isNeeded ? stateId : null }
      await patchCapsule(tx, capsuleId, { ...facts, ...from, updated_at: new Date() })
    })
    return undefined
  } catch (thrown) {
    const error = AppError.from(thrown)
    logFailure(logger, operation, error)
    if (isSilence(error, operation) || (await isFetched(db, capsuleId))) return 'retry'
    const ended = await conclude(db, operation, async (tx) => {
      const current = await lockCapsule(tx, capsuleId)
      if (current?.state === 'resuming' && current.stored_state === stateId) {
        const patch = {
          host_id: null,
          desired_state: 'paused',
          observed_state: 'absent',
          observed_at: new Date(),
        } as const
        await transition(tx, current, 'hibernated', patch)
        // It may have come there all the same.
        const { generation: attempt } = operation
        await addLeftover(tx, { state_id: stateId, capsule_id: capsuleId, host_id: current.host_id, attempt })
      }
      return failure(error)
    })
    hosts.forget(capsuleId)
    return ended
  }
}

/** Whether somebody who had taken the operation over has had it fetched meanwhile: the host has the capsule, so this is no failure. */
async function isFetched(db: Db, id: string): Promise<boolean> {
  const row = await findAnyCapsule(db, id)
  return row !== undefined && row.state === 'resuming' && row.stored_state === null
}

/**
 * Has the host of a capsule that runs, or ran, before its memory was whole look whether it can go on from what is there, and else fetch the state
 * again that it came from.
 */
export async function fetchLost(deps: ExecutorDeps, operation: OperationRow, row: CapsuleRow): Promise<void> {
  if (row.fallback_state !== null) await fetchState(deps, operation, row, row.fallback_state)
}

async function fetchState(deps: ExecutorDeps, { generation, params }: OperationRow, row: CapsuleRow, stateId: string) {
  const { db, host: hosts, keyring } = deps
  const stored = await findStored(db, stateId)
  if (stored === undefined) throw new Error(`${stateId} is a capsule's and not on record`)
  const key = storeKeyOf(keyring, stored)
  const host = hostOfRow(hosts, row.host_id)
  const calls = host ?? hosts
  // Of an earlier stay: it would be in the way.
  if (host !== undefined) await freeLeftovers(deps, host, row.id)
  // The row's own counter: the next one that resumes it has a greater one.
  const attempt = BigInt(generation)
  const request = {
    capsuleId: row.id,
    stateId,
    key,
    bytes: BigInt(stored.bytes ?? 0),
    attempt,
    fromDisk: params?.from === 'disk',
    mayLoadLazily: true,
  }
  const { capsule } = await calls.call((client) => client.fetchCapsule(request, { timeoutMs: TRANSFER_TIMEOUT_MS }))
  return capsule
}
