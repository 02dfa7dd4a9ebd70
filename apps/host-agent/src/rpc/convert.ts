import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { AppError, type CapsuleId, capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind, minimumMemoryMib, RETRY_AFTER_HEADER } from '@wrenn/protocol'
import type { CapsuleSchema, CreateCapsuleRequest, EgressPolicy as EgressMessage } from '@wrenn/protocol/host'
import { needsStored } from '../capsule/lifecycle/index.js'
import type { CapsuleRecord, CreateCapsuleInput, EgressPolicy, Refusal } from '../capsule/types.js'
import type { Destination } from '../host/names/index.js'

const connectCodes: Readonly<Record<string, Code>> = {
  invalid_argument: Code.InvalidArgument,
  failed_precondition: Code.FailedPrecondition,
  unauthenticated: Code.Unauthenticated,
  permission_denied: Code.PermissionDenied,
  not_found: Code.NotFound,
  unimplemented: Code.Unimplemented,
  already_exists: Code.AlreadyExists,
  resource_exhausted: Code.ResourceExhausted,
  out_of_range: Code.OutOfRange,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
  aborted: Code.Aborted,
  deadline_exceeded: Code.DeadlineExceeded,
}

/** Carries a Wrenn error over Connect: its code in the metadata, the nearest Connect code beside it. */
export function toConnectError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown
  const error = AppError.from(thrown)
  const code = connectCodes[errorKind(error.code).connect] ?? Code.Internal
  const { retryAfterSec } = error.details ?? {}
  const wait = retryAfterSec === undefined ? undefined : { [RETRY_AFTER_HEADER]: String(retryAfterSec) }
  return new ConnectError(error.message, code, { [ERROR_CODE_HEADER]: error.code, ...wait }, undefined, error)
}

/** @throws AppError `invalid_request` */
export function parseCapsuleId(text: string): CapsuleId {
  if (capsuleIds.is(text)) return text
  throw new AppError('invalid_request', 'A capsule id is `cl-` followed by 25 lower-case letters and digits.')
}

const positive = (value: number, name: string): number => {
  if (value > 0) return value
  throw new AppError('invalid_request', `${name} must be greater than 0.`)
}

/** A snapshot keeps the size it was saved with, whatever the rule is by now. */
const bootable = (memoryMib: number, { snapshotId }: CreateCapsuleRequest): number => {
  if (memoryMib >= minimumMemoryMib || snapshotId !== '') return positive(memoryMib, 'memory_mib')
  throw new AppError('invalid_request', `memory_mib is ${memoryMib}; a guest needs at least ${minimumMemoryMib}.`)
}

/** @throws AppError `invalid_request` */
export function parseCreate(request: CreateCapsuleRequest): CreateCapsuleInput {
  const capsuleId = parseCapsuleId(request.capsuleId)
  return {
    capsuleId,
    teamId: request.teamId,
    template: request.template,
    vcpus: positive(request.vcpus, 'vcpus'),
    memoryMib: bootable(request.memoryMib, request),
    diskSizeMib: positive(request.diskSizeMib, 'disk_size_mib'),
    envs: request.envs,
    egress: toPolicy(request.egress),
    egressRevision: Number(request.egressRevision),
    hostname: request.hostname || capsuleId,
    defaultUser: request.defaultUser,
    defaultCwd: request.defaultCwd,
    generation: Number(request.generation),
    ...(request.snapshotId === '' ? {} : { snapshotId: parseSnapshotId(request.snapshotId) }),
    isVerified: request.verified,
  }
}

/** A refused attempt as the control plane is told it. */
export function toRefusal(refusal: Refusal) {
  const { name = '', address = '', rule = '', port, reason, count, lastAtMs } = refusal
  return { name, address, rule, port, reason, count: BigInt(count), lastAtMs: BigInt(Math.round(lastAtMs)) }
}

/** A place that was used, as the control plane is told it. */
export function toDestination({ protocol, name, namedBy, address, port, count }: Destination) {
  return { protocol, name: name ?? '', namedBy: namedBy ?? '', address, port, count: BigInt(count) }
}

/** Without one: the internet, and nothing private. */
export function toPolicy(egress: EgressMessage | undefined): EgressPolicy {
  const { internet = true, allow = [], deny = [], learn = false, rules = [] } = egress ?? {}
  const edge = rules.length > 0 && { intercept: true, rules: rules.map(({ host, headers }) => ({ host, headers })) }
  return { internet, allow, deny, ...(learn && { learn }), ...edge }
}

/** @throws AppError `invalid_request` */
export function parseCheckpointId(text: string): string {
  if (checkpointIds.is(text)) return text
  throw new AppError('invalid_request', 'A checkpoint id is `cp-` followed by 25 lower-case letters and digits.')
}

/** @throws AppError `invalid_request` */
export function parseSnapshotId(text: string): string {
  if (snapshotIds.is(text)) return text
  throw new AppError('invalid_request', 'A snapshot id is `snap-` followed by 25 lower-case letters and digits.')
}

/**
 * A record as the control plane hears it: without secret, environment and paths. Absent texts become empty ones, as protobuf
 * has them.
 */
export function toCapsule(record: CapsuleRecord): MessageInitShape<typeof CapsuleSchema> {
  const { exit } = record
  return {
    capsuleId: record.capsuleId,
    state: record.state,
    template: record.template,
    vcpus: record.vcpus,
    memoryMib: record.memoryMib,
    diskSizeMib: record.diskSizeMib,
    engine: record.engine,
    engineVersion: record.engineVersion,
    kernelVersion: record.kernelVersion,
    agentVersion: record.agentVersion,
    path: record.path,
    timings: record.timings.map(({ step, ms }) => ({ step, ms })),
    createdAtMs: BigInt(record.createdAtMs),
    generation: BigInt(record.generation),
    guestAddress: record.resources?.guestAddress ?? '',
    lastActiveAtMs: BigInt(record.lastActiveAtMs),
    teamId: record.teamId,
    pauseReason: record.pauseReason ?? '',
    pausedAtMs: BigInt(record.pausedAtMs ?? 0),
    savedGeneration: BigInt(record.state === 'paused' ? record.files + 1 : 0),
    durableAtMs: BigInt(record.state === 'paused' ? (record.durableAtMs ?? 0) : 0),
    notice: record.notice ?? '',
    diskBytes: BigInt(record.diskBytes ?? 0),
    parentId: record.parentId ?? '',
    snapshotId: record.snapshotId ?? '',
    checkpointId: record.checkpointId ?? '',
    egressRevision: BigInt(record.egressRevision ?? 0),
    // A record from before it was kept has it for as long as nothing else was stored.
    wakeAttempt: BigInt(record.wakeAttempt ?? record.stored?.attempt ?? 0),
    loadedFrom: record.loadedFrom ?? '',
    loadedFromNeeded: needsStored(record),
    lifecycleTimings: (record.lifecycleTimings ?? []).map(({ step, ms }) => ({ step, ms })),
    ...(exit === undefined
      ? {}
      : {
          exit: {
            cause: exit.cause,
            message: exit.message,
            consoleTail: exit.consoleTail,
            atMs: BigInt(exit.atMs),
            ...(exit.exitCode === undefined ? {} : { exitCode: exit.exitCode }),
            ...(exit.signal === undefined ? {} : { signal: exit.signal }),
          },
        }),
  }
}
