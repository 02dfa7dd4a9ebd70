import { AppError, capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import type { CreateCapsuleRequest, ForkCapsuleRequest, FromDisk, SetEgressRequest } from '@wrenn/protocol/host'
import type { FakeCapsule, FakeCheckpoint } from './fake-capsule.js'
import type { FakeCapture } from './fake-capture.js'
import type { FakeOperation } from './fake-faults.js'
import type { FakeHostState, FakeSnapshot } from './fake-state.js'

/** @throws AppError `invalid_request`, `capsule_not_found` */
export function knownCapsule(host: FakeHostState, id: string): FakeCapsule {
  if (!capsuleIds.is(id)) throw new AppError('invalid_request', 'That is not a capsule id.')
  const capsule = host.capsules.get(id)
  if (capsule === undefined) throw new AppError('capsule_not_found', 'The capsule is not on this host.')
  return capsule
}

/** Runs after all earlier lifecycle calls of the capsule. */
async function exclusive<T>(host: FakeHostState, id: string, task: (capsule: FakeCapsule) => Promise<T>): Promise<T> {
  knownCapsule(host, id)
  return await host.locks.run(id, async () => {
    const capsule = knownCapsule(host, id)
    capsule.operations++
    try {
      return await task(capsule)
    } finally {
      capsule.operations--
    }
  })
}

function needState(capsule: FakeCapsule, operation: FakeOperation, ...states: CapsuleState[]): void {
  if (states.includes(capsule.state)) return
  throw new AppError(
    'invalid_state',
    `${operation} needs a capsule that is ${states.join(' or ')}; it is ${capsule.state}.`,
  )
}

/** After a wait: it may have been destroyed, or have died. */
function stillIn(host: FakeHostState, capsule: FakeCapsule, state: CapsuleState): void {
  knownCapsule(host, capsule.id)
  if (capsule.exit !== undefined && state !== 'error') throw new AppError('guest_died', capsule.exit.message)
}

/** Through `via`; a failure goes back to the state it had. */
async function through(
  host: FakeHostState,
  capsule: FakeCapsule,
  via: CapsuleState,
  task: () => Promise<void>,
): Promise<void> {
  const before = { state: capsule.state, exit: capsule.exit }
  Object.assign(capsule, { state: via, exit: undefined })
  host.announce(capsule)
  try {
    await task()
  } catch (error) {
    if (host.capsules.get(capsule.id) === capsule && capsule.state === via) {
      Object.assign(capsule, before)
      host.announce(capsule)
    }
    throw error
  }
}

/** @throws AppError `capsule_not_found`, `invalid_state` */
export async function pause(host: FakeHostState, id: string, reason: string): Promise<FakeCapsule> {
  return await exclusive(host, id, async (capsule) => {
    if (capsule.state === 'paused') return capsule
    needState(capsule, 'pause', 'running')
    const startedAt = performance.now()
    await through(host, capsule, 'pausing', async () => {
      capsule.freeze()
      try {
        await host.faults.pass('pause', 'before')
        stillIn(host, capsule, 'pausing')
      } catch (error) {
        capsule.thaw()
        throw error
      }
    })
    capsule.state = 'paused'
    capsule.pauseReason = reason || 'request'
    capsule.pausedAtMs = Date.now()
    capsule.lifecycleTimings = [{ step: 'save', ms: performance.now() - startedAt }]
    await keepAsFallback(capsule)
    capsule.saved = { generation: ++capsule.saves, durableAtMs: 0, capture: undefined }
    capsule.endUse(new AppError('invalid_state', 'The capsule is paused, not running.'))
    host.announce(capsule)
    await host.faults.pass('pause', 'after')
    return capsule
  })
}

/** A durable state stays until a newer one is durable. */
async function keepAsFallback(capsule: FakeCapsule): Promise<void> {
  const { saved, fallback } = capsule
  if (saved?.capture === undefined) return
  capsule.fallback = saved
  if (fallback !== saved) await fallback?.capture?.dispose()
}

/** Falling back on what was before a rollback would undo it. */
async function forgetSaved(capsule: FakeCapsule): Promise<void> {
  for (const state of [capsule.saved, capsule.fallback]) await state?.capture?.dispose()
  capsule.saved = undefined
  capsule.fallback = undefined
}

/** What a guest that ended goes on from: a durable state of before, or the checkpoint it stands on. */
function newestOf({ saved, fallback, checkpoints, standsOn }: FakeCapsule): FakeCapture | undefined {
  const checkpoint = checkpoints.get(standsOn)
  const candidates = [
    { atMs: saved?.durableAtMs, capture: saved?.capture },
    { atMs: fallback?.durableAtMs, capture: fallback?.capture },
    { atMs: Number(checkpoint?.record.createdAtMs ?? 0), capture: checkpoint?.capture },
  ]
  const kept = candidates.filter(({ capture }) => capture !== undefined)
  return kept.sort((a, b) => (b.atMs ?? 0) - (a.atMs ?? 0))[0]?.capture
}

/** @throws AppError `capsule_not_found`, `invalid_state` */
export async function resume(host: FakeHostState, id: string, fromDisk?: FromDisk): Promise<FakeCapsule> {
  return await exclusive(host, id, async (capsule) => {
    if (capsule.state === 'running') return capsule
    const ended = capsule.state === 'error' && fromDisk === undefined ? newestOf(capsule) : undefined
    if (ended === undefined)
      needState(capsule, 'resume', 'paused', ...(fromDisk === undefined ? [] : ['error' as const]))
    const startedAt = performance.now()
    await through(host, capsule, 'resuming', async () => {
      await host.faults.pass('resume', 'before')
      stillIn(host, capsule, 'resuming')
      await ended?.restoreInto(capsule)
      if (fromDisk !== undefined) await bootAgain(capsule, fromDisk)
    })
    if (ended !== undefined) capsule.notice = 'The guest had ended; it goes on from its newest saved state.'
    if (capsule.saved?.capture === undefined) capsule.saved = capsule.fallback
    capsule.state = 'running'
    capsule.lastActiveAtMs = Date.now()
    capsule.lifecycleTimings = [{ step: 'restore', ms: performance.now() - startedAt }]
    capsule.thaw()
    host.announce(capsule)
    await host.faults.pass('resume', 'after')
    return capsule
  })
}

/** Files stay, processes do not. */
async function bootAgain(capsule: FakeCapsule, { envs, defaultUser, defaultCwd }: FromDisk): Promise<void> {
  capsule.endUse(new AppError('rolled_back', 'The capsule was started from its disk.'))
  await capsule.killProcesses()
  capsule.processes = []
  capsule.request = capsule.request && { ...capsule.request, envs, defaultUser, defaultCwd }
  capsule.notice = 'The capsule was started from its disk.'
}

/** The state of a paused capsule, its checkpoints and the snapshots made of it are on the disk now. */
export async function makeDurable(host: FakeHostState, id: string): Promise<void> {
  await exclusive(host, id, async (capsule) => {
    const durableAtMs = Date.now()
    if (capsule.state === 'paused' && capsule.saved?.durableAtMs === 0) {
      capsule.saved = { ...capsule.saved, durableAtMs, capture: await host.capture(capsule) }
      await capsule.fallback?.capture?.dispose()
      capsule.fallback = undefined
    }
    for (const made of [...capsule.checkpoints.values(), ...host.snapshots.values()]) {
      if ('sourceCapsuleId' in made.record && made.record.sourceCapsuleId !== id) continue
      if (made.record.durableAtMs === 0n) made.record.durableAtMs = BigInt(durableAtMs)
    }
    host.announce(capsule)
  })
}

interface Moment {
  readonly capture: FakeCapture
  readonly pauseWindowMs: number
}

/** The capsule at this moment, for which a running one stands still and goes on; or as it was at a checkpoint of it. */
async function moment(
  host: FakeHostState,
  capsule: FakeCapsule,
  operation: FakeOperation,
  checkpointId = '',
): Promise<Moment> {
  needState(capsule, operation, 'running', 'paused')
  await host.faults.pass(operation, 'before')
  stillIn(host, capsule, capsule.state)
  needState(capsule, operation, 'running', 'paused')
  if (checkpointId !== '') {
    const { capture } = knownCheckpoint(capsule, checkpointId)
    return { capture: await host.copyCapture(capsule, capture), pauseWindowMs: 0 }
  }
  const startedAt = performance.now()
  return await still(capsule, async () => ({
    capture: await host.capture(capsule),
    pauseWindowMs: capsule.state === 'running' ? performance.now() - startedAt : 0,
  }))
}

/** Nothing runs in the capsule during `task`. */
export async function still<T>(capsule: FakeCapsule, task: () => Promise<T>): Promise<T> {
  capsule.freeze()
  try {
    return await task()
  } finally {
    if (capsule.state === 'running') capsule.thaw()
  }
}

export interface FakeFork {
  readonly capsules: readonly FakeCapsule[]
  readonly pauseWindowMs: number
}

/** @throws AppError `invalid_request`, `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `conflict` */
export async function fork(
  host: FakeHostState,
  { capsuleId, copies, checkpointId }: ForkCapsuleRequest,
): Promise<FakeFork> {
  const ids = copies.map((copy) => copy.capsuleId)
  if (ids.length === 0 || new Set(ids).size < ids.length || !ids.every((id) => capsuleIds.is(id))) {
    throw new AppError('invalid_request', 'copies needs one or more different capsule ids.')
  }
  const made = (): readonly FakeCapsule[] | undefined => {
    const existing = ids.flatMap((id) => host.capsules.get(id) ?? [])
    if (existing.length === 0) return undefined
    if (existing.length === ids.length && existing.every(({ parentId }) => parentId === capsuleId)) return existing
    throw new AppError('conflict', 'A capsule with the id of a copy exists already.')
  }
  const earlier = made()
  if (earlier !== undefined) return { capsules: earlier, pauseWindowMs: 0 }
  return await exclusive(host, capsuleId, async (source) => {
    const meanwhile = made()
    if (meanwhile !== undefined) return { capsules: meanwhile, pauseWindowMs: 0 }
    const { capture, pauseWindowMs } = await moment(host, source, 'fork', checkpointId)
    const capsules: FakeCapsule[] = []
    for (const copy of copies) {
      const capsule = await host.makeCapsule(copy.capsuleId)
      await capture.restoreInto(capsule)
      capsule.request = source.request && copyRequest(source.request, copy)
      capsule.parentId = capsuleId
      capsule.path = 'restore'
      capsules.push(capsule)
    }
    await capture.dispose()
    for (const capsule of capsules) enter(host, capsule)
    await host.faults.pass('fork', 'after')
    return { capsules, pauseWindowMs }
  })
}

/** @throws AppError `capsule_not_found` */
export async function setEgress(
  host: FakeHostState,
  { capsuleId, egress, revision }: SetEgressRequest,
): Promise<FakeCapsule> {
  return await exclusive(host, capsuleId, async (capsule) => {
    await host.faults.pass('egress', 'before')
    const { request } = capsule
    if (request !== undefined && revision >= request.egressRevision) {
      capsule.request = { ...request, ...(egress && { egress }), egressRevision: revision }
      host.announce(capsule)
    }
    await host.faults.pass('egress', 'after')
    return capsule
  })
}

function copyRequest(source: CreateCapsuleRequest, copy: ForkCapsuleRequest['copies'][number]): CreateCapsuleRequest {
  const { capsuleId, hostname, generation, egress = source.egress, egressRevision } = copy
  const { envs } = source
  const own = { capsuleId, hostname, generation, envs: { ...envs, ...copy.envs } }
  return {
    ...source,
    ...own,
    ...(egress && { egress }),
    egressRevision: copy.egress ? egressRevision : source.egressRevision,
  }
}

/** The host lists it from now on, and it runs. */
export function enter(host: FakeHostState, capsule: FakeCapsule): void {
  capsule.state = 'running'
  host.capsules.set(capsule.id, capsule)
  capsule.thaw()
  host.announce(capsule)
}

/** @throws AppError `invalid_request`, `capsule_not_found`, `invalid_state`, `conflict` */
export async function createCheckpoint(host: FakeHostState, id: string, checkpointId: string): Promise<FakeCheckpoint> {
  if (!checkpointIds.is(checkpointId)) throw new AppError('invalid_request', 'That is not a checkpoint id.')
  return await exclusive(host, id, async (capsule) => {
    const existing = capsule.checkpoints.get(checkpointId)
    if (existing !== undefined) return existing
    if ([...host.capsules.values()].some(({ checkpoints }) => checkpoints.has(checkpointId))) {
      throw new AppError('conflict', 'Another capsule has a checkpoint with this id.')
    }
    const { capture, pauseWindowMs } = await moment(host, capsule, 'checkpoint')
    const checkpoint: FakeCheckpoint = {
      capture,
      record: {
        checkpointId,
        capsuleId: id,
        parentId: capsule.standsOn,
        createdAtMs: BigInt(Date.now()),
        sizeBytes: BigInt(capture.bytes),
        durableAtMs: 0n,
        pauseWindowMs,
        timings: [{ step: 'save', ms: pauseWindowMs }],
      },
    }
    capsule.checkpoints.set(checkpointId, checkpoint)
    capsule.standsOn = checkpointId
    host.announce(capsule)
    await host.faults.pass('checkpoint', 'after')
    return checkpoint
  })
}

/** @throws AppError `checkpoint_not_found` */
export function knownCheckpoint(capsule: FakeCapsule, checkpointId: string): FakeCheckpoint {
  const checkpoint = capsule.checkpoints.get(checkpointId)
  if (checkpoint === undefined) throw new AppError('checkpoint_not_found', 'The capsule has no such checkpoint.')
  return checkpoint
}

/** What names it as its parent goes on to do so. */
export async function deleteCheckpoint(host: FakeHostState, id: string, checkpointId: string) {
  return await exclusive(host, id, async (capsule) => {
    const checkpoint = capsule.checkpoints.get(checkpointId)
    if (checkpoint === undefined) return { existed: false, freedBytes: 0n }
    capsule.checkpoints.delete(checkpointId)
    await checkpoint.capture.dispose()
    host.announce(capsule)
    return { existed: true, freedBytes: BigInt(checkpoint.capture.bytes) }
  })
}

/** @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state` */
export async function rollback(
  host: FakeHostState,
  id: string,
  checkpointId: string,
  fromDisk?: FromDisk,
): Promise<FakeCapsule> {
  return await exclusive(host, id, async (capsule) => {
    const checkpoint = knownCheckpoint(capsule, checkpointId)
    needState(capsule, 'rollback', 'running', 'paused', 'error')
    await host.faults.pass('rollback', 'before')
    knownCapsule(host, id)
    const startedAt = performance.now()
    capsule.endUse(new AppError('rolled_back', 'The capsule was rolled back to a checkpoint.'))
    await checkpoint.capture.restoreInto(capsule)
    if (fromDisk !== undefined) await bootAgain(capsule, fromDisk)
    capsule.standsOn = checkpointId
    capsule.lifecycleTimings = [{ step: 'restore', ms: performance.now() - startedAt }]
    await forgetSaved(capsule)
    // One that had ended runs again.
    if (capsule.state !== 'paused') capsule.run()
    else capsule.saved = { generation: ++capsule.saves, durableAtMs: 0, capture: undefined }
    host.announce(capsule)
    await host.faults.pass('rollback', 'after')
    return capsule
  })
}

/** @throws AppError `invalid_request`, `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `conflict` */
export async function createSnapshot(
  host: FakeHostState,
  id: string,
  snapshotId: string,
  checkpointId?: string,
): Promise<FakeSnapshot> {
  if (!snapshotIds.is(snapshotId)) throw new AppError('invalid_request', 'That is not a snapshot id.')
  return await exclusive(host, id, async (capsule) => {
    const existing = host.snapshots.get(snapshotId)
    if (existing?.record.sourceCapsuleId === id) return existing
    if (existing !== undefined) throw new AppError('conflict', 'Another capsule has a snapshot with this id.')
    const { capture } = await moment(host, capsule, 'snapshot', checkpointId)
    const { template = '', vcpus = 0, memoryMib = 0, diskSizeMib = 0, ...of } = capsule.message()
    const snapshot: FakeSnapshot = {
      capture,
      record: {
        snapshotId,
        template,
        vcpus,
        memoryMib,
        diskSizeMib,
        sizeBytes: BigInt(capture.bytes),
        createdAtMs: BigInt(Date.now()),
        durableAtMs: 0n,
        sourceCapsuleId: id,
        kernelVersion: of.kernelVersion ?? '',
        agentVersion: of.agentVersion ?? '',
        engine: of.engine ?? '',
        engineVersion: of.engineVersion ?? '',
        teamId: of.teamId ?? '',
      },
    }
    host.snapshots.set(snapshotId, snapshot)
    host.announce(capsule)
    await host.faults.pass('snapshot', 'after')
    return snapshot
  })
}

export async function deleteSnapshot(host: FakeHostState, snapshotId: string) {
  const snapshot = host.snapshots.get(snapshotId)
  if (snapshot === undefined) return { existed: false, freedBytes: 0n }
  host.snapshots.delete(snapshotId)
  await snapshot.capture.dispose()
  return { existed: true, freedBytes: BigInt(snapshot.capture.bytes) }
}

/** Nothing of a fake shares anything. */
export function poolUsage(host: FakeHostState) {
  if (host.poolUsage === 'unmeasured') return { teams: [], measured: false }
  const byTeam = host.poolUsage ?? addedUp(host)
  return { teams: [...byTeam].map(([teamId, bytes]) => ({ teamId, bytes })), measured: true }
}

function addedUp(host: FakeHostState): Map<string, bigint> {
  const byTeam = new Map<string, bigint>()
  const add = (teamId = '', bytes = 0n): void => void byTeam.set(teamId, (byTeam.get(teamId) ?? 0n) + bytes)
  for (const capsule of host.capsules.values()) {
    const { teamId, diskBytes } = capsule.message()
    add(teamId, diskBytes)
    for (const { capture } of capsule.checkpoints.values()) add(teamId, BigInt(capture.bytes))
  }
  for (const { capture, record } of host.snapshots.values()) add(record.teamId, BigInt(capture.bytes))
  return byTeam
}
