import { AppError } from '@wrenn/base'
import type { Capsule, ForkCapsuleResponse } from '@wrenn/protocol/host'
import type { HostCalls } from '../../host/host.js'
import { findCapsules, lockCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { factsOf, hostIdOf } from '../hosts/index.js'
import {
  conclude,
  destroyOnHost,
  type Executor,
  type ExecutorDeps,
  failure,
  isLasting,
  isSilence,
  logFailure,
  truthOf,
} from '../operations/index.js'
import { toCapsule } from './capsule-view.js'
import { carryEgressChangedSince, egressOf } from './carry-egress.js'
import { notStarted } from './execute-create.js'

/** What a fork is to make; in its operation's row. */
export interface ForkParams extends Readonly<Record<string, unknown>> {
  readonly copies: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  /** Absent: the source as it is. */
  readonly checkpointId?: string
}

function forkParamsOf(operation: OperationRow): ForkParams {
  const { copies, envs, checkpointId } = operation.params ?? {}
  if (!Array.isArray(copies) || typeof envs !== 'object' || envs === null) throw new Error('a fork without its params')
  return {
    copies: copies.map(String),
    envs: Object.fromEntries(Object.entries(envs).map(([k, v]) => [k, String(v)])),
    ...(typeof checkpointId === 'string' ? { checkpointId } : {}),
  }
}

/** Lets the host make running copies: all of them or none. */
export function forkExecutor(deps: ExecutorDeps): Executor {
  const { db, host } = deps
  return async (operation) => {
    const params = forkParamsOf(operation)
    let answer: ForkCapsuleResponse
    try {
      answer = await forkOnHost(deps, operation, params)
      await carryEgressChangedSince(deps, answer.capsules)
    } catch (thrown) {
      return await forkFailed(deps, operation, params, AppError.from(thrown))
    }
    const made = new Map(answer.capsules.map((capsule) => [capsule.capsuleId, capsule]))
    // Copies have the host of their capsule from their first moment; only the platform's own may have another id since.
    const hostId = host.only === undefined ? undefined : await hostIdOf(db, host, { host_id: null })
    const unwanted: string[] = []
    await conclude(db, operation, async (tx) => {
      const rows: CapsuleRow[] = []
      for (const id of params.copies) {
        const row = await lockCapsule(tx, id)
        const started = row?.state === 'starting' ? await writeStarted(tx, row, made.get(id), hostId) : undefined
        if (started === undefined) unwanted.push(id)
        if (row !== undefined) rows.push(started ?? row)
      }
      return {
        result: {
          capsules: rows.map((row) => toCapsule(row, { timings: true })),
          pause_window_ms: answer.pauseWindowMs,
          timings: answer.timings.map(({ step, ms }) => ({ step, ms })),
        },
      }
    })
    // Destroyed while they were made; the reconciler does it where this does not come through.
    for (const id of unwanted) await destroyOnHost(host, id).catch(() => {})
    return 'done'
  }
}

async function forkOnHost(
  { db, host, keyring, lifecycleTimeoutMs }: ExecutorDeps,
  operation: OperationRow,
  { copies, envs, checkpointId = '' }: ForkParams,
): Promise<ForkCapsuleResponse> {
  if (!(await isLasting(db, operation.capsule_id))) {
    throw new AppError('invalid_state', 'The capsule ended, or its host fell silent, before it was forked.')
  }
  const rows = new Map((await findCapsules(db, copies)).map((row) => [row.id, row]))
  const request = {
    capsuleId: operation.capsule_id,
    checkpointId,
    copies: await Promise.all(
      copies.map(async (capsuleId) => {
        const row = rows.get(capsuleId)
        const egress = row && (await egressOf(row, { db, keyring }))
        return { capsuleId, hostname: capsuleId, generation: 1n, envs, ...egress }
      }),
    ),
  }
  return await host.call((client) => client.forkCapsule(request, { timeoutMs: lifecycleTimeoutMs }))
}

async function writeStarted(
  tx: Db,
  row: CapsuleRow,
  capsule: Capsule | undefined,
  hostId: string | undefined,
): Promise<CapsuleRow | undefined> {
  const now = new Date()
  return await transition(tx, row, 'started', {
    ...(capsule === undefined ? {} : factsOf(capsule)),
    ...(hostId === undefined ? {} : { host_id: hostId }),
    observed_state: 'running',
    started_at: now,
    last_active_at: now,
  })
}

async function forkFailed(
  { db, host, logger }: ExecutorDeps,
  operation: OperationRow,
  { copies }: ForkParams,
  error: AppError,
): Promise<'done' | 'retry'> {
  logFailure(logger, operation, error)
  if (isSilence(error, operation)) return 'retry'
  // A predecessor that died has asked already, and the host is still at it.
  if (error.code === 'conflict' && (await isStarting(host, copies))) return 'retry'
  await conclude(db, operation, async (tx) => {
    for (const id of copies) {
      const row = await lockCapsule(tx, id)
      if (row?.state === 'starting') await transition(tx, row, 'failed', notStarted('fork_failed', error))
    }
    return failure(error)
  })
  // None of them is wanted any more: what does not go now, the reconciler removes.
  for (const id of copies) await destroyOnHost(host, id).catch(() => {})
  return 'done'
}

async function isStarting(host: HostCalls, copies: readonly string[]): Promise<boolean> {
  const truths = await Promise.all(copies.map((id) => truthOf(host, id).catch(() => undefined)))
  return truths.some((capsule) => capsule?.state === 'starting')
}
