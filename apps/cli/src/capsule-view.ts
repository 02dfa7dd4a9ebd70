import { AppError } from '@wrenn/base'
import type { Capsule, CapsuleInfo } from '@wrenn/sdk'
import { connect } from './connection.js'
import type { Context } from './context.js'
import { idleWords, savedWords, stateWords, wakeWords } from './lifecycle-words.js'
import { facts } from './output.js'
import { showBytes, showSpan } from './units.js'

const CAPSULE_ID = /^cl-[0-9a-z]{25}$/

/**
 * The capsule of an id; names are refused, because several capsules may have one.
 * @throws AppError `invalid_request`; CapsuleNotFoundError
 */
export async function findCapsule(context: Context, id: string): Promise<Capsule> {
  if (!CAPSULE_ID.test(id)) {
    throw new AppError('invalid_request', `${id} is no capsule id (cl-…); \`wrenn capsule ls\` shows ids and names.`)
  }
  return await (await connect(context.config)).capsules.get(id)
}

/** Names as the API has them, so that scripts can use either. */
export function toJson(info: CapsuleInfo): object {
  return {
    id: info.id,
    name: info.name,
    status: info.status,
    state: info.state,
    template: info.template,
    vcpus: info.vcpus,
    memory_mb: info.memoryMib,
    disk_size_mb: info.diskSizeMib,
    timeout_sec: info.timeoutMs / 1000,
    auto_resume: info.autoResume,
    port_access: info.portAccess,
    labels: info.labels,
    engine: info.engine,
    path: info.path,
    host_id: info.hostId,
    created_at: info.createdAt,
    started_at: info.startedAt,
    last_active_at: info.lastActiveAt,
    pauses_at: info.pausesAt,
    ends_at: info.endsAt,
    on_end: info.onEnd,
    awake_because: info.awakeBecause,
    pause_reason: info.pauseReason,
    paused_at: info.pausedAt,
    durable: info.durable,
    durable_at: info.durableAt,
    notice: info.notice,
    parent_id: info.parentId,
    snapshot_id: info.snapshotId,
    checkpoint_id: info.checkpointId,
    disk_bytes: info.diskBytes,
    timings: info.timings,
    lifecycle_timings: info.lifecycleTimings,
    exit: info.exit && { cause: info.exit.cause, message: info.exit.message, console_tail: info.exit.consoleTail },
    metadata: info.metadata,
  }
}

/**
 * What people read of one capsule, a fact per line; facts that there are none of are left out. `now` is what times are told
 * from.
 */
export function showInfo(info: CapsuleInfo, now = new Date()): string {
  return facts({
    id: info.id,
    name: info.name,
    state: stateWords(info, now),
    pausing: idleWords(info, now),
    ends: info.endsAt && `${info.endsAt.toISOString()} (${info.onEnd})`,
    wakes: wakeWords(info),
    ports: info.portAccess === 'private' ? 'private' : undefined,
    'saved state': savedWords(info),
    notice: info.notice,
    template: info.template,
    vcpus: info.vcpus,
    memory: `${info.memoryMib} MiB`,
    disk: `${info.diskSizeMib} MiB${info.diskBytes === undefined ? '' : `, files of ${showBytes(info.diskBytes)}`}`,
    engine: info.engine,
    created: `${info.createdAt.toISOString()}${info.path ? ` (${info.path})` : ''}`,
    'forked from': info.parentId,
    snapshot: info.snapshotId,
    checkpoint: info.checkpointId,
    'idle timeout': info.timeoutMs === 0 ? 'never' : showSpan(info.timeoutMs),
    labels: Object.entries(info.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(' '),
    ended: info.exit?.message,
  })
}
