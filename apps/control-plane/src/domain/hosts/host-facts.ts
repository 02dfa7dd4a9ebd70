import { type CapsuleExit, type PauseReason, pauseReasons } from '@wrenn/protocol'
import type { Capsule, Checkpoint, Exit, Snapshot } from '@wrenn/protocol/host'
import type { CapsulePatch } from '../../store/capsules.js'
import type { CheckpointFacts } from '../../store/checkpoints.js'

/** What a host's report adds to a capsule's row. */
export function factsOf(capsule: Capsule) {
  return {
    engine: capsule.engine || null,
    engine_version: capsule.engineVersion || null,
    kernel_version: capsule.kernelVersion || null,
    agent_version: capsule.agentVersion || null,
    path: capsule.path || null,
    timings: JSON.stringify(capsule.timings.map(({ step, ms }) => ({ step, ms }))),
    guest_address: capsule.guestAddress || null,
    observed_at: new Date(),
    ...savedFactsOf(capsule),
  } satisfies CapsulePatch
}

/** The part of a report that changes while a capsule stays in its state. */
export function savedFactsOf(capsule: Capsule) {
  return {
    pause_reason: isPauseReason(capsule.pauseReason) ? capsule.pauseReason : null,
    paused_at: timeOf(capsule.pausedAtMs),
    durable_at: timeOf(capsule.durableAtMs),
    saved_generation: Number(capsule.savedGeneration),
    egress_in_force: Number(capsule.egressRevision),
    notice: capsule.notice === '' ? null : storable(capsule.notice),
    ...measured('disk_bytes', capsule.diskBytes),
  } satisfies CapsulePatch
}

/** Of the pause, resume or rollback that the report answers. */
export function lifecycleTimingsOf(capsule: Capsule) {
  const timings = capsule.lifecycleTimings.map(({ step, ms }) => ({ step, ms }))
  return { lifecycle_timings: JSON.stringify(timings) } satisfies CapsulePatch
}

/** What a host's report adds to a checkpoint's row. A size that was not measured yet leaves the known one. */
export function checkpointFactsOf(checkpoint: Checkpoint): CheckpointFacts {
  return { ...measured('size_bytes', checkpoint.sizeBytes), durable_at: timeOf(checkpoint.durableAtMs) }
}

/** The same of a snapshot. */
export function snapshotFactsOf(snapshot: Snapshot): CheckpointFacts {
  return { ...measured('size_bytes', snapshot.sizeBytes), durable_at: timeOf(snapshot.durableAtMs) }
}

/** 0 is "not measured yet", as after a restart of the host agent: what it said before still holds. */
function measured<K extends string>(key: K, bytes: bigint): Partial<Record<K, number>> {
  const known: Partial<Record<K, number>> = {}
  if (bytes > 0n) known[key] = Number(bytes)
  return known
}

/** 0 is "not yet" in a host's words. */
function timeOf(ms: bigint): Date | null {
  return ms === 0n ? null : new Date(Number(ms))
}

function isPauseReason(text: string): text is PauseReason {
  return pauseReasons.some((reason) => reason === text)
}

/** A host's report of an end as it is stored: text without what a database cannot hold. */
export function exitOf(exit: Exit | undefined): CapsuleExit {
  if (exit === undefined) return { cause: 'unknown', message: 'The capsule ended and its host does not know why.' }
  return {
    cause: exit.cause || 'unknown',
    message: exit.message,
    ...(exit.exitCode === undefined ? {} : { exit_code: exit.exitCode }),
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    ...(exit.consoleTail === '' ? {} : { console_tail: storable(exit.consoleTail) }),
    ...(exit.atMs === 0n ? {} : { at: new Date(Number(exit.atMs)).toISOString() }),
  }
}

/** A console may print anything; jsonb cannot hold NUL. */
function storable(text: string): string {
  return text.replaceAll('\0', '')
}
