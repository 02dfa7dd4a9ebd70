import type { ServiceImpl } from '@connectrpc/connect'
import type { HostService } from '@wrenn/protocol/host'
import type { FakeCapsule } from './fake-capsule.js'
import { diffPage, fileAt } from './fake-diff-pages.js'
import * as hibernation from './fake-hibernation.js'
import { exportSnapshot } from './fake-images.js'
import * as lifecycle from './fake-lifecycle.js'
import { stream, unary } from './fake-rpc.js'
import type { FakeHostState } from './fake-state.js'

const CHANGES_PER_MESSAGE = 500

type LifecycleMethods = Pick<
  ServiceImpl<typeof HostService>,
  | 'pauseCapsule'
  | 'resumeCapsule'
  | 'storeCapsule'
  | 'fetchCapsule'
  | 'freeCapsule'
  | 'forkCapsule'
  | 'createCheckpoint'
  | 'listCheckpoints'
  | 'deleteCheckpoint'
  | 'rollbackCapsule'
  | 'diffCheckpoints'
  | 'readCheckpointFile'
  | 'setEgress'
  | 'listRefusals'
  | 'listDestinations'
  | 'createSnapshot'
  | 'listSnapshots'
  | 'exportSnapshot'
  | 'deleteSnapshot'
  | 'getActivity'
  | 'collectGarbage'
  | 'getPoolUsage'
>

/** Everything that keeps, copies and brings back capsules. */
export function createLifecycleMethods(host: FakeHostState): LifecycleMethods {
  return {
    pauseCapsule: unary(async ({ capsuleId, reason }) => ({
      capsule: (await lifecycle.pause(host, capsuleId, reason)).message(),
    })),
    resumeCapsule: unary(async ({ capsuleId, fromDisk }) => ({
      capsule: (await lifecycle.resume(host, capsuleId, fromDisk)).message(),
    })),
    storeCapsule: unary((request) => hibernation.store(host, request)),
    fetchCapsule: unary((request) => hibernation.fetchStored(host, request)),
    freeCapsule: unary(async (request) => ({ existed: await hibernation.free(host, request) })),
    forkCapsule: unary(async (request) => {
      const { capsules, pauseWindowMs } = await lifecycle.fork(host, request)
      const timings = [{ step: 'save', ms: pauseWindowMs }]
      return { capsules: capsules.map((capsule) => capsule.message()), pauseWindowMs, timings }
    }),
    createCheckpoint: unary(async ({ capsuleId, checkpointId }) => ({
      checkpoint: (await lifecycle.createCheckpoint(host, capsuleId, checkpointId)).record,
    })),
    getPoolUsage: unary(async () => {
      await host.faults.pass('pool_usage', 'before')
      return lifecycle.poolUsage(host)
    }),
    listCheckpoints: unary(async ({ capsuleId }) => ({
      checkpoints: [...lifecycle.knownCapsule(host, capsuleId).checkpoints.values()].map(({ record }) => record),
    })),
    deleteCheckpoint: unary(({ capsuleId, checkpointId }) => lifecycle.deleteCheckpoint(host, capsuleId, checkpointId)),
    rollbackCapsule: unary(async ({ capsuleId, checkpointId, fromDisk }) => ({
      capsule: (await lifecycle.rollback(host, capsuleId, checkpointId, fromDisk)).message(),
    })),
    diffCheckpoints: stream(async function* (request) {
      await host.faults.pass('diff', 'before')
      const { changes, captureId } = await diffPage(host, request)
      for (let at = 0; at < changes.length; at += CHANGES_PER_MESSAGE) {
        yield { changes: changes.slice(at, at + CHANGES_PER_MESSAGE), captureId }
      }
    }),
    readCheckpointFile: unary(async (request) => {
      await host.faults.pass('read_file_at', 'before')
      return { content: await fileAt(host, request) }
    }),
    setEgress: unary(async (request) => ({ capsule: (await lifecycle.setEgress(host, request)).message() })),
    listRefusals: unary(async ({ capsuleId }) => ({ refusals: lifecycle.knownCapsule(host, capsuleId).refusals })),
    listDestinations: unary(async ({ capsuleId }) => lifecycle.knownCapsule(host, capsuleId).learned()),
    createSnapshot: unary(async ({ capsuleId, snapshotId, checkpointId }) => ({
      snapshot: (await lifecycle.createSnapshot(host, capsuleId, snapshotId, checkpointId)).record,
    })),
    listSnapshots: unary(async () => ({ snapshots: [...host.snapshots.values()].map(({ record }) => record) })),
    exportSnapshot: stream((request) => exportSnapshot(host, request)),
    deleteSnapshot: unary(({ snapshotId }) => lifecycle.deleteSnapshot(host, snapshotId)),
    getActivity: unary(async ({ capsuleIds }) => ({
      capsules: [...host.capsules.values()]
        .filter(({ id, state }) => state === 'running' && (capsuleIds.length === 0 || capsuleIds.includes(id)))
        .map((capsule) => activityOf(host, capsule)),
    })),
    collectGarbage: unary(async () => ({})),
  }
}

function activityOf(host: FakeHostState, capsule: FakeCapsule) {
  const { reasons, cpuPct, lastActiveAtMs } = host.activity.get(capsule.id) ?? {}
  const awake = [
    capsule.streams > 0 && 'stream',
    capsule.processes.some((process) => process.running && process.options.foreground) && 'process',
    capsule.operations > 0 && 'operation',
  ].filter((reason) => reason !== false)
  return {
    capsuleId: capsule.id,
    lastActiveAtMs: BigInt(lastActiveAtMs ?? capsule.lastActiveAtMs),
    reasons: [...(reasons ?? awake)],
    cpuPct: cpuPct ?? 0,
  }
}
