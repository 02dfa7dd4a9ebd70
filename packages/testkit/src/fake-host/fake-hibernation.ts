import { AppError } from '@wrenn/base'
import type { FetchCapsuleRequest, FreeCapsuleRequest, StoreCapsuleRequest } from '@wrenn/protocol/host'
import type { FakeCapsule } from './fake-capsule.js'
import { knownCapsule } from './fake-lifecycle.js'
import type { FakeHostState } from './fake-state.js'

/** Of a layer that every state stands on. */
const LAYER = 'ab'.repeat(32)

/** @throws AppError `capsule_not_found`, `invalid_state`, `conflict` when the capsule moved meanwhile */
export async function store(host: FakeHostState, { capsuleId, stateId, key }: StoreCapsuleRequest) {
  const capsule = knownCapsule(host, capsuleId)
  const answer = { bytes: 0n, sentBytes: 0n, layers: [LAYER] }
  if (isStoredAs(capsule, stateId, 0n)) return { capsule: capsule.message(), ...answer }
  needStorable(capsule)
  const { saves } = capsule
  await host.faults.pass('store', 'before')
  const stored = await host.locks.run(capsuleId, async () => {
    const { state, request } = knownCapsule(host, capsuleId)
    if (state !== 'paused' || capsule.saves !== saves) {
      throw new AppError(
        'conflict',
        'The capsule was used or changed while its state was being stored; it goes on here.',
      )
    }
    needStorable(capsule)
    const capture = await host.capture(capsule)
    const { path, parentId, snapshotId, pauseReason, pausedAtMs } = capsule
    const of = { path, parentId, snapshotId, pauseReason, pausedAtMs }
    host.store.set(stateId, { capsuleId, capture, request, of, key: keyText(key) })
    capsule.storedAs = { stateId, saves, attempt: 0n }
    host.announce(capsule)
    return capture
  })
  await host.faults.pass('store', 'after')
  return { capsule: capsule.message(), ...answer, bytes: BigInt(stored.bytes), sentBytes: BigInt(stored.bytes) }
}

/** @throws AppError `conflict`, `not_found` */
export async function fetchStored(host: FakeHostState, request: FetchCapsuleRequest) {
  const { capsuleId, stateId, key, attempt, mayLoadLazily } = request
  return await host.locks.run(capsuleId, async () => {
    const there = host.capsules.get(capsuleId)
    if (there?.loadedFrom === stateId && there.state !== 'paused') return await fetchAgain(host, there, request)
    if (there !== undefined) {
      const { storedAs, state } = there
      const isKnown = storedAs?.stateId === stateId && storedAs.attempt === attempt
      const isOlder =
        storedAs !== undefined && storedAs.attempt < attempt && isStoredAs(there, stateId, storedAs.attempt)
      if (there.loadedFrom === stateId && !isKnown && !isOlder) return { capsule: there.message(), fetchedBytes: 0n }
      if (!isKnown && !isOlder) throw new AppError('conflict', `The capsule is ${state} here, in another state.`)
      there.storedAs = { ...storedAs, attempt }
      there.wakeAttempt = attempt
      return { capsule: there.message(), fetchedBytes: 0n }
    }
    await host.faults.pass('fetch_state', 'before')
    const stored = host.store.get(stateId)
    if (stored === undefined || stored.capsuleId !== capsuleId)
      throw new AppError('not_found', 'There is no such state.')
    if (stored.key !== keyText(key)) throw new AppError('snapshot_damaged', 'The state does not open with this key.')
    const capsule = await host.makeCapsule(capsuleId)
    await stored.capture.restoreInto(capsule)
    Object.assign(capsule, stored.of, { request: stored.request, state: 'paused', saves: 1 })
    const isLazy = mayLoadLazily && host.loadsLazily
    capsule.saved = isLazy
      ? { generation: 1, durableAtMs: 0, capture: undefined }
      : { generation: 1, durableAtMs: Date.now(), capture: await host.capture(capsule) }
    if (isLazy) capsule.loadedFrom = stateId
    capsule.storedAs = { stateId, saves: 1, attempt }
    capsule.wakeAttempt = attempt
    capsule.forgetRules()
    host.capsules.set(capsuleId, capsule)
    host.announce(capsule)
    await host.faults.pass('fetch_state', 'after')
    return { capsule: capsule.message(), fetchedBytes: BigInt(stored.capture.bytes) }
  })
}

/** One that has ended and has nothing here to go on from becomes what is in the store. */
async function fetchAgain(host: FakeHostState, capsule: FakeCapsule, { stateId, attempt }: FetchCapsuleRequest) {
  if (capsule.state === 'error' && !capsule.hasDurable) {
    await host.faults.pass('fetch_state', 'before')
    const stored = host.store.get(stateId)
    if (stored === undefined) throw new AppError('not_found', 'There is no such state.')
    await stored.capture.restoreInto(capsule)
    capsule.saved = { generation: ++capsule.saves, durableAtMs: Date.now(), capture: await host.capture(capsule) }
    capsule.wakeAttempt = attempt
  }
  return { capsule: capsule.message(), fetchedBytes: 0n }
}

/** False when the capsule is not here, or is not what was stored. */
export async function free(host: FakeHostState, { capsuleId, stateId, attempt }: FreeCapsuleRequest): Promise<boolean> {
  await host.faults.pass('free', 'before')
  return await host.locks.run(capsuleId, async () => {
    const capsule = host.capsules.get(capsuleId)
    if (capsule === undefined || !isStoredAs(capsule, stateId, attempt)) return false
    return await host.remove(capsuleId)
  })
}

function isStoredAs({ state, saves, storedAs }: FakeCapsule, stateId: string, attempt: bigint): boolean {
  if (state !== 'paused' || storedAs?.stateId !== stateId) return false
  return storedAs.saves === saves && storedAs.attempt === attempt
}

function needStorable({ state, checkpoints }: FakeCapsule): void {
  if (state !== 'paused')
    throw new AppError('invalid_state', `The capsule is ${state}; only a paused one can be stored.`)
  if (checkpoints.size === 0) return
  throw new AppError('invalid_state', 'The capsule has checkpoints, which stay on their host: delete them first.')
}

function keyText(key: StoreCapsuleRequest['key']): string {
  return `${key?.id}:${Buffer.from(key?.key ?? []).toString('hex')}`
}
