import { AppError, errorText } from '@wrenn/base'
import type { CreateCapsuleResponse } from '@wrenn/protocol/host'
import { findAnyCapsule, lockCapsule, transition } from '../../store/capsules.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { factsOf, hostIdOf } from '../hosts/index.js'
import {
  conclude,
  destroyOnHost,
  type Executor,
  type ExecutorDeps,
  failure,
  fieldsOf,
  overtaken,
} from '../operations/index.js'
import { carryEgressChangedSince, egressOf } from './carry-egress.js'
import { placeAnew } from './place-anew.js'

/** A create that another process took over may have run out of time because of its first one. */
const MAX_TIMEOUTS = 3
/** A built-in template that nobody has used yet: its packages are downloaded and installed first. */
const FIRST_BUILD_MS = 30 * 60_000
const WHAT = 'it had started'

/** Lets the host make a capsule; what fails leaves nothing there. */
export function createExecutor(deps: ExecutorDeps): Executor {
  const execute: Executor = async (operation) => {
    const { db, host } = deps
    let row = await findAnyCapsule(db, operation.capsule_id)
    if (row?.state === 'pending') row = (await transition(db, row, 'start')) ?? (await findAnyCapsule(db, row.id))
    if (row === undefined || row.state !== 'starting') {
      const isThere = row?.state === 'running'
      return await conclude(db, operation, async () => (isThere ? {} : failure(overtaken(row, WHAT))))
    }
    let answer: CreateCapsuleResponse
    try {
      answer = await createOnHost(deps, operation, row)
    } catch (thrown) {
      const error = AppError.from(thrown)
      const moved = await placeAnew(deps, operation, error)
      if (moved === undefined) return await createFailed(deps, operation, error)
      deps.logger.warn(
        { ...fieldsOf(moved), hostId: moved.params?.hostId, error: error.message },
        'capsule.placed_anew',
      )
      return await execute(moved)
    }
    try {
      if (answer.capsule !== undefined) await carryEgressChangedSince(deps, [answer.capsule])
    } catch (thrown) {
      // It is there: whatever this one says, it is placed nowhere else.
      return await createFailed(deps, operation, AppError.from(thrown))
    }
    const hostId = await hostIdOf(db, host, row)
    let isWanted = true
    await conclude(db, operation, async (tx) => {
      const current = await lockCapsule(tx, operation.capsule_id)
      isWanted = current?.state === 'starting'
      if (current === undefined || !isWanted) return failure(overtaken(current, WHAT))
      const now = new Date()
      await transition(tx, current, 'started', {
        ...(answer.capsule === undefined ? {} : factsOf(answer.capsule)),
        ...(hostId === undefined ? {} : { host_id: hostId }),
        observed_state: 'running',
        started_at: now,
        last_active_at: now,
      })
      return {}
    })
    if (!isWanted) await destroyOnHost(host, operation.capsule_id)
    return 'done'
  }
  return execute
}

async function createOnHost(
  { db, host, keyring, createTimeoutMs }: ExecutorDeps,
  operation: OperationRow,
  row: CapsuleRow,
): Promise<CreateCapsuleResponse> {
  // The row names what the capsule was asked to be made of; a snapshot has a built-in template below it.
  const base = operation.params?.template
  const template = typeof base === 'string' ? base : row.template
  // A host that cannot say so now is asked the same by the create, with more patience.
  const known = await host
    .of(row)
    .findTemplate(template)
    .catch(() => undefined)
  const isBuilt = known?.sizeBytes !== 0n
  const egress = await egressOf(row, { db, keyring })
  return await host.call((client) =>
    client.createCapsule(
      {
        capsuleId: row.id,
        teamId: row.team_id,
        template,
        snapshotId: row.snapshot_id ?? '',
        vcpus: row.vcpus,
        memoryMib: row.memory_mib,
        diskSizeMib: row.disk_size_mib,
        envs: row.envs,
        defaultUser: row.default_user,
        defaultCwd: row.default_cwd,
        hostname: row.id,
        generation: BigInt(row.generation),
        verified: operation.params?.isVerified === true,
        ...egress,
      },
      { timeoutMs: createTimeoutMs + (isBuilt ? 0 : FIRST_BUILD_MS) },
    ),
  )
}

async function createFailed(deps: ExecutorDeps, operation: OperationRow, error: AppError): Promise<'done' | 'retry'> {
  const { db, host, logger } = deps
  const again = isAgain(deps, operation, error)
  logger[again && operation.attempts > 1 ? 'debug' : 'warn'](
    { ...fieldsOf(operation), code: error.code, error: error.message, cause: errorText(error.cause) },
    'capsule.create_failed',
  )
  if (again) return 'retry'
  await conclude(db, operation, async (tx) => {
    // Nothing may stay behind: what the host made late is destroyed, by us now or by the reconciler.
    const row = await lockCapsule(tx, operation.capsule_id)
    if (row?.state === 'starting') await transition(tx, row, 'failed', notStarted('create_failed', error))
    return failure(error)
  })
  if (AppError.is(error, 'host_unavailable', 'timeout')) await destroyOnHost(host, operation.capsule_id).catch(() => {})
  return 'done'
}

/** Asking again is harmless: a host that made the capsule answers with it, one that was restarted has given it up. */
function isAgain({ createRetryMs }: ExecutorDeps, operation: OperationRow, error: AppError): boolean {
  if (error.code === 'database_unavailable') return true
  if (error.code === 'host_unavailable') return Date.now() - operation.created_at.getTime() < createRetryMs
  return error.code === 'timeout' && operation.attempts > 1 && operation.attempts < MAX_TIMEOUTS
}

/** What is written of a capsule that never ran. */
export function notStarted(cause: string, error: AppError) {
  const exit = { cause, message: error.message, at: new Date().toISOString() }
  return { desired_state: 'stopped' as const, exit: JSON.stringify(exit) }
}
