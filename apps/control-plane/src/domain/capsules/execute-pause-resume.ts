import { AppError } from '@wrenn/base'
import type { CapsuleCommand } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import type { HostCalls } from '../../host/host.js'
import { type CapsulePatch, findAnyCapsule, lockCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { Conclusion } from '../../store/operations.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { exitOf, factsOf, lifecycleTimingsOf } from '../hosts/index.js'
import {
  conclude,
  type Executor,
  type ExecutorDeps,
  failure,
  isSilence,
  logFailure,
  overtaken,
  truthOf,
} from '../operations/index.js'
import { toCapsule } from './capsule-view.js'
import { carryPendingEgress } from './carry-egress.js'
import { fetchForResume, fetchLost } from './fetch-for-resume.js'

/** One direction between running and paused. */
interface Move {
  readonly via: 'pausing' | 'resuming'
  readonly goal: 'paused' | 'running'
  /** For the sentence of one that something else overtook. */
  readonly what: string
  /** What the host's state means for the row that is on its way. */
  readonly commands: { readonly running: CapsuleCommand; readonly paused: CapsuleCommand }
  readonly ask: (operation: OperationRow, row: CapsuleRow) => Promise<Capsule | undefined>
}

/**
 * Lets the host pause a capsule that is `pausing`. When the host refuses, the row becomes what the host says of the capsule;
 * one that is silent is asked again.
 */
export function pauseExecutor(deps: ExecutorDeps): Executor {
  return moveExecutor(deps, pauseMove(deps))
}

/**
 * The same as a part of another operation, which ends with it where it fails.
 * @returns how the operation ended; `undefined`: it goes on
 */
export async function pauseForOperation(
  deps: ExecutorDeps,
  operation: OperationRow,
  row: CapsuleRow,
): Promise<'done' | 'retry' | undefined> {
  const move = pauseMove(deps)
  try {
    const capsule = await move.ask(operation, row)
    const arrived = await deps.db.transaction().execute((tx) => arrive(tx, operation, move, { capsule }))
    return arrived.error === undefined ? undefined : await conclude(deps.db, operation, async () => arrived)
  } catch (thrown) {
    return await moveFailed(deps, operation, move, AppError.from(thrown))
  }
}

function pauseMove({ host, lifecycleTimeoutMs: timeoutMs }: ExecutorDeps): Move {
  return {
    via: 'pausing',
    goal: 'paused',
    what: 'it was paused',
    commands: { running: 'failed', paused: 'paused' },
    ask: async ({ capsule_id: capsuleId, params }) => {
      const reason = typeof params?.reason === 'string' ? params.reason : 'request'
      return (await host.call((client) => client.pauseCapsule({ capsuleId, reason }, { timeoutMs }))).capsule
    },
  }
}

/** Lets the host resume a capsule that is `resuming`, which it first fetches where it was hibernated; otherwise as {@link pauseExecutor}. */
export function resumeExecutor(deps: ExecutorDeps): Executor {
  const { host, lifecycleTimeoutMs: timeoutMs } = deps
  const resume = moveExecutor(deps, {
    via: 'resuming',
    goal: 'running',
    what: 'it was resumed',
    commands: { running: 'started', paused: 'failed' },
    ask: async (operation, row) => {
      const { capsule_id: capsuleId, params } = operation
      await fetchLost(deps, operation, row)
      await carryPendingEgress(deps, row)
      const request = { capsuleId, ...fromDiskOf(params, row) }
      return (await host.call((client) => client.resumeCapsule(request, { timeoutMs }))).capsule
    },
  })
  return async (operation) => {
    const row = await findAnyCapsule(deps.db, operation.capsule_id)
    // A proxy alone has no key: a control plane takes it over.
    if (row?.state === 'resuming' && row.fallback_state !== null && deps.keyring.isEmpty) return 'retry'
    const ended = row?.state === 'resuming' ? await fetchForResume(deps, operation, row) : undefined
    return ended ?? (await resume(operation))
  }
}

/** What the host needs to start a capsule without its memory, when that is what an operation is for. */
export function fromDiskOf(params: OperationRow['params'], row: CapsuleRow): { fromDisk?: FromDisk } {
  if (params?.from !== 'disk') return {}
  return { fromDisk: { envs: row.envs, defaultUser: row.default_user, defaultCwd: row.default_cwd } }
}

/** What only the memory of a capsule knows. */
interface FromDisk {
  readonly envs: Record<string, string>
  readonly defaultUser: string
  readonly defaultCwd: string
}

function moveExecutor(deps: ExecutorDeps, move: Move): Executor {
  const { db } = deps
  return async (operation) => {
    const row = await findAnyCapsule(db, operation.capsule_id)
    if (row?.state !== move.via) {
      const reached = row?.state === move.goal ? answer(row) : undefined
      return await conclude(db, operation, async () => reached ?? failure(overtaken(row, move.what)))
    }
    try {
      const capsule = await move.ask(operation, row)
      return await conclude(db, operation, (tx) => arrive(tx, operation, move, { capsule }))
    } catch (thrown) {
      return await moveFailed(deps, operation, move, AppError.from(thrown))
    }
  }
}

/** The host refused or failed. What the capsule is now, the host knows; the row follows it. */
async function moveFailed(
  { db, host, logger }: ExecutorDeps,
  operation: OperationRow,
  move: Move,
  error: AppError,
): Promise<'done' | 'retry'> {
  logFailure(logger, operation, error)
  if (isSilence(error, operation)) return 'retry'
  const truth = await settledTruthOf(host, operation.capsule_id)
  if (truth === 'unsettled') return 'retry'
  return await conclude(db, operation, (tx) => arrive(tx, operation, move, { capsule: truth, error }))
}

/** States in which a host leaves a capsule; all others pass. */
const settledStates: readonly string[] = ['running', 'paused', 'error', 'stopped']

/** Where a capsule has come to on its host; `unsettled` while that works on it, or says nothing now, whatever it said before. */
export async function settledTruthOf(host: HostCalls, capsuleId: string): Promise<Capsule | undefined | 'unsettled'> {
  try {
    const truth = await truthOf(host, capsuleId)
    return truth === undefined || settledStates.includes(truth.state) ? truth : 'unsettled'
  } catch {
    return 'unsettled'
  }
}

interface Arrival {
  readonly capsule: Capsule | undefined
  /** Of the call, when it failed. */
  readonly error?: AppError
}

async function arrive(tx: Db, operation: OperationRow, move: Move, { capsule, error }: Arrival): Promise<Conclusion> {
  const row = await lockCapsule(tx, operation.capsule_id)
  if (row?.state !== move.via) {
    return row?.state === move.goal ? answer(row) : failure(overtaken(row, move.what))
  }
  // A call that succeeded is believed whatever state its answer shows: it may be older than the next event.
  const state = error === undefined ? move.goal : (capsule?.state ?? 'absent')
  const patch = capsule === undefined ? {} : { ...factsOf(capsule), ...lifecycleTimingsOf(capsule) }
  if (state === 'running' || state === 'paused') {
    const settled = state === move.goal ? { ...settledIn(state), ...askedLife(operation, row) } : stayed(state)
    const moved = await transition(tx, row, move.commands[state], { ...patch, ...settled })
    if (state === move.goal && moved !== undefined) return answer(moved)
  } else if (state === 'absent') {
    await transition(tx, row, 'lost', { observed_state: 'absent', observed_at: new Date() })
  } else {
    const exit = JSON.stringify(exitOf(capsule?.exit))
    await transition(tx, row, 'exited', { ...patch, exit, observed_state: 'error', stopped_at: new Date() })
  }
  return failure(error ?? new AppError('internal', 'The capsule did not move.'))
}

/** The end of a life whose length came with the request to resume. */
function askedLife({ params }: OperationRow, row: CapsuleRow): CapsulePatch {
  if (typeof params?.lifetimeSec !== 'number' || row.lifetime_sec === null) return {}
  return { ends_at: new Date(Date.now() + params.lifetimeSec * 1000) }
}

/** What is so of every capsule that has come to run or to rest. */
export function settledIn(state: 'running' | 'paused'): CapsulePatch {
  const now = new Date()
  const both = { desired_state: state, observed_state: state, observed_at: now }
  if (state === 'paused') return { ...both, awake_because: null }
  return { ...both, started_at: now, last_active_at: now, stopped_at: null, exit: null, awake_because: null }
}

/** It is where it was before the attempt. */
function stayed(state: 'running' | 'paused'): CapsulePatch {
  return { desired_state: state, observed_state: state, observed_at: new Date() }
}

/** What the operation gives. */
export function answer(row: CapsuleRow): Conclusion {
  return { result: { capsule: toCapsule(row, { lifecycleTimings: true }) } }
}
