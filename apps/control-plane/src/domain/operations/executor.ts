import { AppError, errorText, type Logger } from '@wrenn/base'
import { type CapsuleState, type ErrorBody, errorKind } from '@wrenn/protocol'
import type { Capsule } from '@wrenn/protocol/host'
import { isAway } from '../../host/errors.js'
import type { HostCalls } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import { findAnyCapsule, lockCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { type Conclusion, finishOperation, lockRunning } from '../../store/operations.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import type { Placement } from '../hosts/index.js'
import type { Keyring } from '../secrets/index.js'
import { fieldsOf } from './operations.js'

/** Whose deadline passed this often is not coming back. */
const MAX_TIMEOUTS = 3
const TRUTH_TIMEOUT_MS = 10_000
const DESTROY_TIMEOUT_MS = 60_000

/** What operations are carried out with; timeouts are those of one call to the host. */
export interface ExecutorDeps {
  readonly db: Db
  readonly host: Hosts
  readonly logger: Logger
  /** Opens what rules of egress policies set. */
  readonly keyring: Keyring
  readonly createTimeoutMs: number
  /** Of a create whose host is away, since it was asked for. */
  readonly createRetryMs: number
  /** Of every other call that saves, copies or brings back a capsule. */
  readonly lifecycleTimeoutMs: number
  readonly placement: Placement
}

/**
 * Writes the end of an operation in one transaction with what it changes, so that one that runs again after a crash finds
 * either none of its marks or has nothing to do.
 */
export async function conclude(
  db: Db,
  operation: OperationRow,
  change: (tx: Db) => Promise<Conclusion>,
): Promise<'done'> {
  await db.transaction().execute(async (tx) => {
    if (await lockRunning(tx, operation.id)) await finishOperation(tx, operation.id, await change(tx))
  })
  return 'done'
}

/** The end of an operation that failed; an error that may pass by itself lets its key be used again. */
export function failure(error: AppError): Conclusion {
  return { error: toWire(error), releaseKey: errorKind(error.code).retryable }
}

function toWire(error: AppError): ErrorBody['error'] {
  return {
    code: error.code,
    message: error.message,
    ...(error.details === undefined ? {} : { details: error.details }),
  }
}

/** The host said nothing: whether it did what it was asked is unknown, and asking again is harmless. */
export function isSilence(error: AppError, operation: OperationRow): boolean {
  if (error.code === 'timeout') return operation.attempts < MAX_TIMEOUTS
  return isAway(error)
}

/** One line per failure, however often a silent host is asked again. */
export function logFailure(logger: Logger, operation: OperationRow, error: AppError): void {
  const level = operation.attempts > 1 && isSilence(error, operation) ? 'debug' : 'warn'
  logger[level](
    { ...fieldsOf(operation), code: error.code, error: error.message, cause: errorText(error.cause) },
    `capsule.${operation.kind}_failed`,
  )
}

/** Why an operation cannot go on whose capsule is no longer as it was. */
export function overtaken(row: CapsuleRow | undefined, what: string): AppError {
  if (row === undefined || row.state === 'stopping' || row.state === 'stopped') {
    return new AppError('invalid_state', `The capsule was destroyed before ${what}.`)
  }
  if (row.state === 'missing') {
    return new AppError('host_unavailable', `The host of the capsule fell silent before ${what}.`)
  }
  if (row.state === 'error' && row.exit !== null) {
    return new AppError('guest_died', `The capsule ended before ${what}: ${row.exit.message}`, {
      details: { exit: row.exit },
    })
  }
  return new AppError('invalid_state', `The capsule is ${row.state}; something else came before ${what}.`, {
    details: { state: row.state },
  })
}

/** The capsule on its host now; `undefined` when an answering host does not have it. @throws AppError `host_unavailable` */
export async function truthOf(host: HostCalls, capsuleId: string): Promise<Capsule | undefined> {
  try {
    return (await host.call((client) => client.getCapsule({ capsuleId }, { timeoutMs: TRUTH_TIMEOUT_MS }))).capsule
  } catch (error) {
    if (AppError.is(error, 'capsule_not_found', 'not_found')) return undefined
    throw error
  }
}

/**
 * Ends a capsule on its host with all its files; one that the host does not have is fine.
 * @throws AppError `host_unavailable`, …
 */
export async function destroyOnHost(host: HostCalls, capsuleId: string): Promise<void> {
  try {
    await host.call((client) => client.destroyCapsule({ capsuleId }, { timeoutMs: DESTROY_TIMEOUT_MS }))
  } catch (error) {
    if (!AppError.is(error, 'capsule_not_found')) throw error // of a host that was removed, or never on any
  }
}

/** States in which a capsule's files can be copied; out of others there is nothing to wait for. */
const lasting: ReadonlySet<CapsuleState> = new Set(['running', 'paused', 'pausing', 'resuming', 'error'])

/** Whether an operation that does not move its capsule still makes sense. */
export async function isLasting(db: Db, capsuleId: string): Promise<boolean> {
  const row = await findAnyCapsule(db, capsuleId)
  return row !== undefined && lasting.has(row.state)
}

/** The capsule's row, held, if it is still there to be changed. */
export async function lockLasting(tx: Db, capsuleId: string): Promise<CapsuleRow | undefined> {
  const row = await lockCapsule(tx, capsuleId)
  return row !== undefined && row.state !== 'stopping' && row.state !== 'stopped' ? row : undefined
}
