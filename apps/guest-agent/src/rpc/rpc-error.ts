import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'

/** HTTP status of each Connect code, https://connectrpc.com/docs/protocol#error-codes */
const statusOfConnectCode: Readonly<Record<string, number>> = {
  canceled: 499,
  unknown: 500,
  invalid_argument: 400,
  deadline_exceeded: 504,
  not_found: 404,
  already_exists: 409,
  permission_denied: 403,
  resource_exhausted: 429,
  failed_precondition: 400,
  aborted: 409,
  out_of_range: 400,
  unimplemented: 501,
  internal: 500,
  unavailable: 503,
  unauthenticated: 401,
}

interface WireError {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

function connectError(error: AppError): { code: string; message: string } {
  return { code: errorKind(error.code).connect, message: error.message }
}

/** The error of a unary call: an HTTP status with a JSON body, our own code in a header. */
export function unaryError(thrown: unknown): WireError {
  const error = AppError.from(thrown)
  const wire = connectError(error)
  return {
    status: statusOfConnectCode[wire.code] ?? 500,
    headers: { 'content-type': 'application/json', [ERROR_CODE_HEADER]: error.code },
    body: JSON.stringify(wire),
  }
}

/** The payload of a stream's last frame: `{}` or the error with our own code as metadata. */
export function endOfStream(thrown?: unknown): string {
  if (thrown === undefined) return '{}'
  const error = AppError.from(thrown)
  return JSON.stringify({ error: connectError(error), metadata: { [ERROR_CODE_HEADER]: [error.code] } })
}
