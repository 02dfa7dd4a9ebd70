import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import { AppError, type CapsuleId, pathText } from '@wrenn/base'
import { type PauseReason, pauseReasons } from '@wrenn/protocol'
import type {
  CheckpointSchema,
  EgressPolicy,
  FileChangeSchema,
  HostService,
  SnapshotSchema,
} from '@wrenn/protocol/host'
import type { DiffPage, FileChange } from '../capsule/diff/index.js'
import type { Checkpoint, ForkCopy, Snapshot, StateRef } from '../capsule/lifecycle/index.js'
import {
  parseCapsuleId,
  parseCheckpointId,
  parseSnapshotId,
  toCapsule,
  toDestination,
  toPolicy,
  toRefusal,
} from './convert.js'
import type { ServiceDeps, Wrappers } from './handlers.js'

const MAX_COPIES = 100
/** Of a team's states in the store. */
const KEY_BYTES = 32
/** Changes per message: enough to keep the stream busy, few enough to keep it flowing. */
const DIFF_BATCH = 200

type LifecycleCall =
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
  | 'deleteSnapshot'
  | 'getActivity'
  | 'collectGarbage'
  | 'getPoolUsage'

/** The calls that save capsules and take them up again. */
export function lifecycleHandlers(
  { parts }: ServiceDeps,
  { unary, stream }: Wrappers,
): Pick<ServiceImpl<typeof HostService>, LifecycleCall> {
  return {
    pauseCapsule: unary(async ({ capsuleId, reason }) => ({
      capsule: toCapsule(await parts().manager.pause(parseCapsuleId(capsuleId), parseReason(reason))),
    })),
    resumeCapsule: unary(async ({ capsuleId, fromDisk }) => ({
      capsule: toCapsule(await parts().manager.resume(parseCapsuleId(capsuleId), fromDisk)),
    })),
    storeCapsule: unary(async (request, context) => {
      const { manager } = parts()
      const ref = parseStateRef(request)
      const { record, bytes, sentBytes, layers } = await manager.store(ref, request.storedLayers, context.signal)
      return { capsule: toCapsule(record), bytes: BigInt(bytes), sentBytes: BigInt(sentBytes), layers: [...layers] }
    }),
    fetchCapsule: unary(async (request, context) => {
      const { manager } = parts()
      const { bytes, attempt, fromDisk, mayLoadLazily } = request
      const wish = { bytes: Number(bytes), attempt: Number(attempt), fromDisk, mayLoadLazily }
      const { record, fetchedBytes } = await manager.fetch(parseStateRef(request), wish, context.signal)
      return { capsule: toCapsule(record), fetchedBytes: BigInt(fetchedBytes) }
    }),
    freeCapsule: unary(async ({ capsuleId, stateId, attempt }) => ({
      existed: await parts().manager.free(parseCapsuleId(capsuleId), parseStateId(stateId), Number(attempt)),
    })),
    forkCapsule: unary(async ({ capsuleId, copies, checkpointId }) => {
      const source = parseCapsuleId(capsuleId)
      const result = await parts().manager.fork(source, parseCopies(source, copies), parsePoint(checkpointId))
      return {
        capsules: result.records.map(toCapsule),
        pauseWindowMs: result.pauseWindowMs,
        timings: result.timings.map(({ step, ms }) => ({ step, ms })),
      }
    }),
    createCheckpoint: unary(async ({ capsuleId, checkpointId }) => {
      const { points } = parts().manager
      return {
        checkpoint: toCheckpoint(await points.create(parseCapsuleId(capsuleId), parseCheckpointId(checkpointId))),
      }
    }),
    listCheckpoints: unary(async ({ capsuleId }) => ({
      checkpoints: (await parts().manager.points.list(parseCapsuleId(capsuleId))).map(toCheckpoint),
    })),
    deleteCheckpoint: unary(async ({ capsuleId, checkpointId }) => {
      const { points } = parts().manager
      return toRemoval(await points.remove(parseCapsuleId(capsuleId), parseCheckpointId(checkpointId)))
    }),
    rollbackCapsule: unary(async ({ capsuleId, checkpointId, fromDisk }) => {
      const { points } = parts().manager
      const target = parseCheckpointId(checkpointId)
      return { capsule: toCapsule(await points.rollback(parseCapsuleId(capsuleId), target, fromDisk)) }
    }),
    diffCheckpoints: stream(async function* (request, context) {
      const page: DiffPage = { captureId: undefined }
      const query = {
        capsuleId: parseCapsuleId(request.capsuleId),
        fromCheckpointId: parseCheckpointId(request.fromCheckpointId),
        toCheckpointId: request.toCheckpointId === '' ? undefined : parseCheckpointId(request.toCheckpointId),
        captureId: request.captureId === '' || request.toCheckpointId !== '' ? undefined : request.captureId,
        path: request.path === '' ? undefined : request.path,
        after: request.after.length === 0 ? undefined : Buffer.from(request.after),
        limit: request.limit === 0 ? undefined : request.limit,
        signal: context.signal,
      }
      for await (const batch of batches(parts().differ.diff(query, page), DIFF_BATCH)) {
        yield { changes: batch.map(toFileChange), captureId: page.captureId ?? '' }
      }
    }),
    readCheckpointFile: unary(async ({ capsuleId, checkpointId, path, maxBytes }, context) => ({
      content: await parts().differ.readFile({
        capsuleId: parseCapsuleId(capsuleId),
        checkpointId: checkpointId === '' ? undefined : parseCheckpointId(checkpointId),
        ...{ path, maxBytes },
        signal: context.signal,
      }),
    })),
    setEgress: unary(async ({ capsuleId, egress, revision }) => ({
      capsule: toCapsule(
        await parts().manager.setEgress(parseCapsuleId(capsuleId), toPolicy(egress), Number(revision)),
      ),
    })),
    listRefusals: unary(async ({ capsuleId }) => ({
      refusals: (await parts().manager.refusals(parseCapsuleId(capsuleId))).map(toRefusal),
    })),
    listDestinations: unary(async ({ capsuleId }) => {
      const { destinations, isComplete } = await parts().manager.learned(parseCapsuleId(capsuleId))
      return { destinations: destinations.map(toDestination), isComplete }
    }),
    createSnapshot: unary(async ({ capsuleId, snapshotId, checkpointId }) => {
      const { snapshots } = parts().manager
      const source = parseCapsuleId(capsuleId)
      return {
        snapshot: toSnapshot(await snapshots.create(source, parseSnapshotId(snapshotId), parsePoint(checkpointId))),
      }
    }),
    listSnapshots: unary(async () => ({ snapshots: (await parts().manager.snapshots.list()).map(toSnapshot) })),
    deleteSnapshot: unary(async ({ snapshotId }) =>
      toRemoval(await parts().manager.snapshots.remove(parseSnapshotId(snapshotId))),
    ),
    getActivity: unary(async ({ capsuleIds }) => {
      const found = await parts().manager.activity.read(capsuleIds.map(parseCapsuleId))
      return {
        capsules: found.map(({ capsuleId, lastActiveAtMs, reasons, cpuPct }) => ({
          capsuleId,
          lastActiveAtMs: BigInt(lastActiveAtMs),
          reasons: [...reasons],
          cpuPct,
        })),
      }
    }),
    getPoolUsage: unary(async () => {
      const usage = await parts().manager.usage()
      const teams = (usage ?? []).map(({ teamId, bytes }) => ({ teamId, bytes: BigInt(bytes) }))
      return { teams, measured: usage !== undefined }
    }),
    collectGarbage: unary(async ({ dryRun }) => {
      const items = await parts().garbage.collect(dryRun)
      return {
        items: items.map(({ kind, name, bytes }) => ({ kind, name, bytes: BigInt(bytes) })),
        freedBytes: BigInt(items.reduce((sum, { bytes }) => sum + bytes, 0)),
      }
    }),
  }
}

interface StateMessage {
  readonly capsuleId: string
  readonly stateId: string
  readonly key?: { readonly id: string; readonly key: Uint8Array } | undefined
}

function parseStateRef({ capsuleId, stateId, key }: StateMessage): StateRef {
  if (key?.key.length !== KEY_BYTES || !/^[\w-]{1,100}$/.test(key.id)) {
    throw new AppError('invalid_request', `key must have an id and ${KEY_BYTES} bytes.`)
  }
  return {
    capsuleId: parseCapsuleId(capsuleId),
    stateId: parseStateId(stateId),
    key: { id: key.id, key: Buffer.from(key.key) },
  }
}

/** It is a part of names in the store. */
function parseStateId(text: string): string {
  if (/^state-[0-9a-z-]{1,60}$/.test(text)) return text
  throw new AppError('invalid_request', 'A state id is `state-` followed by lower-case letters, digits and dashes.')
}

/** Empty: the capsule as it is. */
function parsePoint(checkpointId: string): string | undefined {
  return checkpointId === '' ? undefined : parseCheckpointId(checkpointId)
}

function parseReason(text: string): PauseReason {
  const reason = pauseReasons.find((one) => one === (text === '' ? 'request' : text))
  if (reason !== undefined) return reason
  throw new AppError('invalid_request', `reason must be one of ${pauseReasons.join(', ')}.`)
}

interface CopyMessage {
  readonly capsuleId: string
  readonly hostname: string
  readonly generation: bigint
  readonly envs: Readonly<Record<string, string>>
  readonly egress?: EgressPolicy | undefined
  readonly egressRevision: bigint
}

function parseCopies(source: CapsuleId, copies: readonly CopyMessage[]): ForkCopy[] {
  if (copies.length < 1 || copies.length > MAX_COPIES) {
    throw new AppError('invalid_request', `A fork makes 1 to ${MAX_COPIES} copies.`)
  }
  const parsed = copies.map(({ capsuleId, hostname, generation, envs, egress, egressRevision }) => {
    const id = parseCapsuleId(capsuleId)
    const own = egress && { egress: toPolicy(egress), egressRevision: Number(egressRevision) }
    return { capsuleId: id, hostname: hostname || id, generation: Number(generation), envs, ...own }
  })
  const ids = new Set([source, ...parsed.map((copy) => copy.capsuleId)])
  if (ids.size === parsed.length + 1) return parsed
  throw new AppError(
    'invalid_request',
    'The copies of a fork need ids that differ from each other and from its source.',
  )
}

function toCheckpoint(checkpoint: Checkpoint): MessageInitShape<typeof CheckpointSchema> {
  const { checkpointId, capsuleId, parentId, createdAtMs, sizeBytes, durableAtMs } = checkpoint
  return {
    ...{ checkpointId, capsuleId, parentId },
    createdAtMs: BigInt(createdAtMs),
    sizeBytes: BigInt(sizeBytes),
    durableAtMs: BigInt(durableAtMs ?? 0),
    pauseWindowMs: checkpoint.pauseWindowMs ?? 0,
    timings: (checkpoint.timings ?? []).map(({ step, ms }) => ({ step, ms })),
  }
}

function toSnapshot({
  snapshotId,
  manifest,
  sizeBytes,
  durableAtMs,
}: Snapshot): MessageInitShape<typeof SnapshotSchema> {
  const { template, vcpus, memoryMib, diskSizeMib, kernelVersion, agentVersion, engine, engineVersion } = manifest
  return {
    snapshotId,
    ...{ template, vcpus, memoryMib, diskSizeMib, kernelVersion, agentVersion, engine, engineVersion },
    sizeBytes: BigInt(sizeBytes),
    createdAtMs: BigInt(manifest.savedAtMs),
    durableAtMs: BigInt(durableAtMs ?? 0),
    sourceCapsuleId: manifest.capsuleId,
    teamId: manifest.teamId,
  }
}

function toRemoval(freed: number | undefined): { existed: boolean; freedBytes: bigint } {
  return { existed: freed !== undefined, freedBytes: BigInt(freed ?? 0) }
}

function toFileChange(change: FileChange): MessageInitShape<typeof FileChangeSchema> {
  return {
    path: pathText(change.path),
    change: change.change,
    type: change.type,
    size: BigInt(change.size),
    what: [...change.what],
  }
}

async function* batches<T>(items: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = []
  for await (const item of items) {
    batch.push(item)
    if (batch.length < size) continue
    yield batch
    batch = []
  }
  if (batch.length > 0) yield batch
}
