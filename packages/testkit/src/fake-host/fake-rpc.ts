import { Code, ConnectError, type HandlerContext } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind, RETRY_AFTER_HEADER } from '@wrenn/protocol'

/** A handler whose errors leave with their Wrenn code. */
export function unary<Request, Response>(handle: (request: Request, context: HandlerContext) => Promise<Response>) {
  return async (request: Request, context: HandlerContext): Promise<Response> => {
    try {
      return await handle(request, context)
    } catch (error) {
      throw toConnectError(error)
    }
  }
}

/** The same for a stream. */
export function stream<Request, Response>(
  handle: (request: Request, context: HandlerContext) => AsyncGenerator<Response>,
) {
  return async function* (request: Request, context: HandlerContext): AsyncGenerator<Response> {
    try {
      yield* handle(request, context)
    } catch (error) {
      throw toConnectError(error)
    }
  }
}

const codes: Readonly<Record<string, Code>> = {
  invalid_argument: Code.InvalidArgument,
  failed_precondition: Code.FailedPrecondition,
  permission_denied: Code.PermissionDenied,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  unavailable: Code.Unavailable,
  aborted: Code.Aborted,
  resource_exhausted: Code.ResourceExhausted,
  deadline_exceeded: Code.DeadlineExceeded,
}

export function toConnectError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown
  const error = AppError.from(thrown)
  const code = codes[errorKind(error.code).connect] ?? Code.Internal
  const { retryAfterSec } = error.details ?? {}
  const wait = retryAfterSec === undefined ? undefined : { [RETRY_AFTER_HEADER]: String(retryAfterSec) }
  return new ConnectError(error.message, code, { [ERROR_CODE_HEADER]: error.code, ...wait }, undefined, error)
}
