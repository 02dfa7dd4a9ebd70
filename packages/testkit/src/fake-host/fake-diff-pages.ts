import { randomBytes } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { DiffCheckpointsRequest, FileChangeSchema, ReadCheckpointFileRequest } from '@wrenn/protocol/host'
import { diffTrees, readTreeFile } from './fake-diff.js'
import { knownCapsule, knownCheckpoint, still } from './fake-lifecycle.js'
import type { FakeHostState } from './fake-state.js'

type FileChange = MessageInitShape<typeof FileChangeSchema>

/** A page of changes; one of a capsule as it is names the comparison that the next page goes on with. */
export async function diffPage(
  host: FakeHostState,
  request: DiffCheckpointsRequest,
): Promise<{ readonly changes: readonly FileChange[]; readonly captureId: string }> {
  const { limit, toCheckpointId } = request
  const all = await changesOf(host, request)
  const after = Buffer.from(request.after)
  const rest = all.filter(({ path = '' }) => after.length === 0 || Buffer.compare(Buffer.from(path), after) > 0)
  const changes = limit === 0 ? rest : rest.slice(0, limit)
  if (toCheckpointId !== '' || changes.length < limit || limit === 0) return { changes, captureId: request.captureId }
  const captureId = request.captureId || randomBytes(8).toString('hex')
  host.comparisons.set(captureId, all)
  return { changes, captureId }
}

/** The content of a file at a checkpoint, or now. */
export async function fileAt(host: FakeHostState, request: ReadCheckpointFileRequest): Promise<Uint8Array> {
  const { capsuleId, checkpointId, path, maxBytes } = request
  const capsule = knownCapsule(host, capsuleId)
  if (checkpointId === '') return await still(capsule, () => readTreeFile(capsule.files.root, path, maxBytes))
  return await readTreeFile(knownCheckpoint(capsule, checkpointId).capture.dir, path, maxBytes)
}

async function changesOf(host: FakeHostState, request: DiffCheckpointsRequest): Promise<readonly FileChange[]> {
  const { capsuleId, fromCheckpointId, toCheckpointId, captureId, path } = request
  const capsule = knownCapsule(host, capsuleId)
  const from = knownCheckpoint(capsule, fromCheckpointId).capture.dir
  if (toCheckpointId !== '') return await diffTrees(from, knownCheckpoint(capsule, toCheckpointId).capture.dir, path)
  if (captureId === '') return await still(capsule, () => diffTrees(from, capsule.files.root, path))
  const kept = host.comparisons.get(captureId)
  if (kept === undefined) throw new AppError('invalid_request', 'cursor: what it goes on with is gone; begin again.')
  return kept
}
