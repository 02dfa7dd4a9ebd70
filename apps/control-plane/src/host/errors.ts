import { Code, ConnectError } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, type ErrorCode, isErrorCode, RETRY_AFTER_HEADER } from '@wrenn/protocol'

/** For errors without a Wrenn code: from the transport, or from a foreign piece in between. */
const byConnectCode: Partial<Record<Code, ErrorCode>> = {
  [Code.InvalidArgument]: 'invalid_request',
  [Code.NotFound]: 'not_found',
  [Code.AlreadyExists]: 'conflict',
  [Code.FailedPrecondition]: 'invalid_state',
  [Code.PermissionDenied]: 'permission_denied',
  [Code.ResourceExhausted]: 'limit_exceeded',
  [Code.OutOfRange]: 'range_not_satisfiable',
  [Code.DeadlineExceeded]: 'timeout',
  [Code.Unimplemented]: 'host_unavailable',
  [Code.Unauthenticated]: 'host_unavailable',
}

/** What a failed host call means to our caller. */
export function fromHostError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  const error = ConnectError.from(thrown)
  const code = error.metadata.get(ERROR_CODE_HEADER)
  if (code !== null && isErrorCode(code)) return named(code, error)
  if (isConnectionLoss(error)) {
    if (isAway(error.cause)) return error.cause
    return new AppError('host_unavailable', 'The host of the capsule does not answer.', { cause: thrown })
  }
  const mapped = byConnectCode[error.code]
  if (mapped !== undefined) return new AppError(mapped, error.rawMessage, { cause: thrown })
  return new AppError('internal', 'The host of the capsule failed to answer.', { cause: thrown })
}

/** Nobody has said anything, and the same may be asked again: the host is away, or the database that knows which one it is. */
export function isAway(error: unknown): error is AppError {
  return AppError.is(error, 'host_unavailable', 'database_unavailable')
}

/**
 * Whether a call that failed so cannot have come to its host: there was no connection to it, nor anybody to connect to. Of any other failure
 * that is not known.
 */
export function isNeverSent(error: AppError): boolean {
  if (error.code !== 'host_unavailable') return false
  for (let cause: unknown = error.cause; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof NotConnected || ('syscall' in cause && cause.syscall === 'connect')) return true
  }
  return false
}

/** A connection that was not agreed on in time, or that nobody began: nothing was sent by it. */
export class NotConnected extends Error {}

/** Our own word, before anything was sent: there is nobody to send it to. */
export function notSent(message: string): AppError {
  return new AppError('host_unavailable', message, { cause: new NotConnected('nothing was sent') })
}

function named(code: ErrorCode, error: ConnectError): AppError {
  const retryAfter = error.metadata.get(RETRY_AFTER_HEADER)
  const details = retryAfter === null ? {} : { details: { retryAfterSec: Number(retryAfter) } }
  return new AppError(code, error.rawMessage, { ...details, cause: error })
}

/**
 * What to throw of a call that older host agents do not have: that the host is one, or what came.
 * @param lacks what it does not do, such as `exports no templates`
 */
export function unlessOlderHost(thrown: unknown, lacks: string): unknown {
  const isUnknownCall =
    thrown instanceof ConnectError && thrown.code === Code.Unimplemented && !thrown.metadata.has(ERROR_CODE_HEADER)
  if (!isUnknownCall) return thrown
  return new AppError('not_supported', `The host agent is older than the platform, and ${lacks}.`, { cause: thrown })
}

/** The connection broke or could not be made: the host said nothing at all. */
export function isConnectionLoss(thrown: unknown): boolean {
  if (!(thrown instanceof ConnectError) || thrown.metadata.has(ERROR_CODE_HEADER)) return false
  const lost: readonly Code[] = [Code.Unavailable, Code.Aborted, Code.Canceled, Code.Internal, Code.Unknown]
  return (
    lost.includes(thrown.code) && (thrown.code === Code.Unavailable || thrown.cause !== undefined || isReset(thrown))
  )
}

function isReset(error: ConnectError): boolean {
  return /http\/2|ECONN|EPIPE|socket|stream (?:closed|was reset)|session|premature|missing EndStream/i.test(
    error.rawMessage,
  )
}
