/**
 * Every state a capsule can be in; docs/lifecycle.md says what each means. The database checks its rows against the same
 * list.
 */
export const capsuleStates = [
  'pending',
  'starting',
  'running',
  'pausing',
  'paused',
  'resuming',
  'hibernated',
  'stopping',
  'stopped',
  'missing',
  'error',
] as const
/**
 * The exact state, as `state` of a capsule shows it. Compare it here only: `isUsable` and `isAsleep` answer the usual
 * questions.
 */
export type CapsuleState = (typeof capsuleStates)[number]

/**
 * What moves a capsule: what people ask for (`start`, `pause`, `resume`, `hibernate`, `fork`, `checkpoint`, `rollback`, `snapshot`,
 * `destroy`), and what happens to it (`started`, `paused`, `hibernated`, `exited`, `lost`, `found`, `failed`, `destroyed`).
 */
export const capsuleCommands = [
  'start',
  'started',
  'pause',
  'paused',
  'resume',
  'hibernate',
  'hibernated',
  'fork',
  'checkpoint',
  'rollback',
  'snapshot',
  'destroy',
  'destroyed',
  'exited',
  'lost',
  'found',
  'failed',
] as const
/** What moves a capsule through {@link capsuleTransitions}. */
export type CapsuleCommand = (typeof capsuleCommands)[number]

/**
 * The lifecycle: state → command → next state. A command that is not listed is not legal there (409 `invalid_state`).
 * `fork`, `checkpoint`, `rollback` and `snapshot` do not move a capsule: it stays what it was. A host may pause a capsule by
 * itself (`paused` out of `running`) when it runs short of memory or space. A guest that ended with a saved state behind it
 * may be resumed from that state, or rolled back to a checkpoint: both make it run again. A capsule is stored away while it is
 * `paused`, so that it can be resumed at any moment of that; `hibernated` is what it becomes when its state is in the store alone.
 * A host moves a hibernated one only when the database was restored and the host has the capsule of after that.
 */
export const capsuleTransitions = {
  pending: { start: 'starting', destroy: 'stopping', failed: 'error', lost: 'missing' },
  starting: { started: 'running', destroy: 'stopping', failed: 'error', exited: 'error', lost: 'missing' },
  running: {
    pause: 'pausing',
    hibernate: 'pausing',
    paused: 'paused',
    fork: 'running',
    checkpoint: 'running',
    rollback: 'running',
    snapshot: 'running',
    destroy: 'stopping',
    exited: 'error',
    lost: 'missing',
    failed: 'error',
  },
  pausing: { paused: 'paused', destroy: 'stopping', exited: 'error', lost: 'missing', failed: 'running' },
  paused: {
    resume: 'resuming',
    hibernate: 'paused',
    hibernated: 'hibernated',
    fork: 'paused',
    checkpoint: 'paused',
    rollback: 'paused',
    snapshot: 'paused',
    destroy: 'stopping',
    lost: 'missing',
    started: 'running',
    exited: 'error',
  },
  resuming: {
    started: 'running',
    paused: 'paused',
    hibernated: 'hibernated',
    destroy: 'stopping',
    exited: 'error',
    lost: 'missing',
    failed: 'paused',
  },
  hibernated: { resume: 'resuming', destroy: 'stopping', found: 'running', paused: 'paused', exited: 'error' },
  stopping: { destroyed: 'stopped', destroy: 'stopping', lost: 'stopping' },
  stopped: { destroy: 'stopped' },
  missing: {
    found: 'running',
    paused: 'paused',
    destroy: 'stopping',
    exited: 'error',
    failed: 'error',
    lost: 'missing',
  },
  error: { resume: 'resuming', rollback: 'resuming', paused: 'paused', destroy: 'stopping' },
} as const satisfies Record<CapsuleState, Partial<Record<CapsuleCommand, CapsuleState>>>

/** The state after `command`, or `undefined` when the command is not legal in `state`. */
export function nextState(state: CapsuleState, command: CapsuleCommand): CapsuleState | undefined {
  const row: Partial<Record<CapsuleCommand, CapsuleState>> = capsuleTransitions[state]
  return row[command]
}

/** The closed set of `status`, which clients from before the finer states match exhaustively: never add one. */
export const wireStatuses = [
  'pending',
  'starting',
  'running',
  'paused',
  'hibernated',
  'stopped',
  'missing',
  'error',
] as const
/** What `status` of a capsule shows, made of its state by {@link wireStatus}. */
export type WireStatus = (typeof wireStatuses)[number]

const shownAs: Record<CapsuleState, WireStatus> = {
  pending: 'pending',
  starting: 'starting',
  running: 'running',
  pausing: 'running',
  paused: 'paused',
  resuming: 'paused',
  hibernated: 'hibernated',
  stopping: 'running',
  stopped: 'stopped',
  missing: 'missing',
  error: 'error',
}

/** Existing clients know a closed set of statuses; a transitional state shows as the nearest of them. */
export function wireStatus(state: CapsuleState): WireStatus {
  return shownAs[state]
}

/** States out of which a capsule with `auto_resume` wakes when it is used. */
export function isAsleep(state: CapsuleState): boolean {
  return state === 'paused' || state === 'pausing' || state === 'resuming' || state === 'hibernated'
}

/** States in which commands may be run and files read. */
export function isUsable(state: CapsuleState): boolean {
  return state === 'running'
}

/**
 * What a capsule holds in a state, which is what usage counts: `awake` its vCPUs, memory and disk, `asleep` its disk and saved memory,
 * `kept` only its disk. A state that is not here counts for nothing: nothing is given yet, or the end was asked for or has come.
 */
export const heldIn = {
  starting: 'awake',
  running: 'awake',
  pausing: 'awake',
  resuming: 'awake',
  paused: 'asleep',
  hibernated: 'kept',
  missing: 'kept',
} as const satisfies Partial<Record<CapsuleState, 'awake' | 'asleep' | 'kept'>>
