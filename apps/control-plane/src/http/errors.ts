import { ConnectError } from '@connectrpc/connect'
import { ACCEPTED_CODINGS, AppError, errorText, type Logger } from '@wrenn/base'
import { type ErrorBody, errorKind, RETRY_AFTER_HEADER } from '@wrenn/protocol'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import { fromHostError } from '../host/errors.js'
import { fromDatabaseError } from '../store/database.js'
import { tellFailure } from './traces.js'

/** The body of an error answer. */
export function errorBody(error: AppError, requestId: string): ErrorBody {
  const { hint } = errorKind(error.code)
  return {
    error: {
      code: error.code,
      message: error.message,
      ...(hint === undefined ? {} : { hint }),
      ...(error.details === undefined ? {} : { details: { ...error.details } }),
      requestId,
    },
  }
}

type Bodies = (error: AppError, request: FastifyRequest) => object

/** Turns whatever a handler, a hook, a parser or a validator threw into an answer, whose body is in the form that its client reads. */
export function createErrorHandler(logger: Logger, bodyOf: Bodies = (error, { id }) => errorBody(error, id)) {
  return (thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const error = toAppError(thrown)
    const { status } = errorKind(error.code)
    tellFailure(request, error.code)
    if (request.access) request.access = { ...request.access, error: error.code }
    if (status >= 500) {
      logger.error(
        { requestId: request.id, code: error.code, error: error.message, cause: causeText(error.cause) },
        'request.failed',
      )
    }
    const retryAfterSec = error.details?.retryAfterSec
    if (typeof retryAfterSec === 'number') void reply.header(RETRY_AFTER_HEADER, retryAfterSec)
    // RFC 9110 §15.5.16: what would have been understood.
    if (status === 415 && request.headers['content-encoding'] !== undefined)
      void reply.header('accept-encoding', ACCEPTED_CODINGS)
    if (status === 401) void reply.header('www-authenticate', 'ApiKey header="X-API-Key", Bearer')
    return reply.status(status).type('application/json; charset=utf-8').send(bodyOf(error, request))
  }
}

function causeText(cause: unknown): string | undefined {
  if (cause === undefined) return undefined
  return cause instanceof Error && !(cause instanceof AppError) ? (cause.stack ?? cause.message) : errorText(cause)
}

function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (thrown instanceof ConnectError) return fromHostError(thrown)
  if (hasZodFastifySchemaValidationErrors(thrown)) return invalidRequest(thrown)
  if (!(thrown instanceof Error)) return AppError.from(thrown)
  if (isFastifyError(thrown)) return fromFramework(thrown)
  return fromDatabaseError(thrown)
}

interface Invalid {
  readonly validation: readonly {
    readonly instancePath: string
    readonly message?: string | undefined
    readonly params: Readonly<Record<string, unknown>>
  }[]
  readonly validationContext?: string | undefined
}

function invalidRequest(thrown: Invalid): AppError {
  const where =
    thrown.validationContext === undefined || thrown.validationContext === 'body' ? '' : `${thrown.validationContext} `
  const issues = thrown.validation.slice(0, 20).map(({ instancePath, message, params }) => {
    const unknown: readonly unknown[] = Array.isArray(params.keys) ? params.keys.slice(0, 1) : []
    const field = [...instancePath.split('/'), ...unknown].filter((part) => part !== '').join('.')
    return { field: field.slice(0, 200), message: message ?? 'is not valid' }
  })
  const first = issues[0]
  const text = first === undefined ? 'The request is not valid.' : `${where}${first.field || 'body'}: ${first.message}`
  return new AppError('invalid_request', text, { details: { issues } })
}

function isFastifyError(error: Error): error is FastifyError {
  return 'statusCode' in error && typeof error.statusCode === 'number'
}

const byStatus: Readonly<Record<number, string>> = {
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'too_large',
  415: 'unsupported_media_type',
  406: 'unsupported_media_type',
}

function fromFramework(error: FastifyError): AppError {
  const status = error.statusCode ?? 500
  if (status >= 500) return new AppError('internal', 'Something went wrong inside Wrenn.', { cause: error })
  return new AppError(byStatus[status] ?? 'invalid_request', error.message, { cause: error })
}
