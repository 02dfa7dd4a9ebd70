import type { IncomingMessage } from 'node:http'
import { Code, ConnectError } from '@connectrpc/connect'
import { AppError, errorText, isErrno } from '@wrenn/base'
import { ERROR_CODE_HEADER, isErrorCode } from '@wrenn/protocol'
import { z } from 'zod'
import { LineLost } from './pulse.js'

/** What is read of an answer to memory: who owns a guest may have replaced its agent with one that never ends. */
const ANSWER_BYTES = 64 * 1024

const failure = z.object({ code: z.union([z.string(), z.number()]).optional(), message: z.string() })

const codeOfStatus: Readonly<Record<number, string>> = {
  400: 'invalid_request',
  401: 'invalid_request',
  403: 'permission_denied',
  404: 'file_not_found',
  409: 'conflict',
  413: 'too_large',
  416: 'range_not_satisfiable',
  507: 'disk_full',
}

/**
 * The Wrenn code that the guest named. A guest says `unauthorized` to a user it does not know; to our callers, whose key was
 * fine, that is a wrong request.
 */
function codeNamed(header: unknown): string | undefined {
  if (typeof header !== 'string' || !isErrorCode(header)) return undefined
  return header === 'unauthorized' ? 'invalid_request' : header
}

/** What an answer with an error status means. */
export async function httpFailure(answer: IncomingMessage): Promise<AppError> {
  const status = answer.statusCode ?? 500
  const named = codeNamed(answer.headers[ERROR_CODE_HEADER])
  const body = failure.safeParse(await readJson(answer).catch(() => undefined))
  const message = body.success ? body.data.message : `The guest agent answered with status ${status}.`
  return new AppError(named ?? codeOfStatus[status] ?? 'guest_error', message, { details: { status } })
}

const codeOfConnect: Partial<Record<Code, string>> = {
  [Code.InvalidArgument]: 'invalid_request',
  [Code.NotFound]: 'not_found',
  [Code.AlreadyExists]: 'conflict',
  [Code.FailedPrecondition]: 'invalid_state',
  [Code.PermissionDenied]: 'permission_denied',
  [Code.Unauthenticated]: 'invalid_request',
  [Code.ResourceExhausted]: 'limit_exceeded',
  [Code.DeadlineExceeded]: 'timeout',
  [Code.OutOfRange]: 'range_not_satisfiable',
}

/** Nobody there: no such address, no agent at the port or no longer one, or no answer to the SYN. */
const NOBODY_THERE = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'ETIMEDOUT']

/** Keeps the meaning of a guest failure: its Wrenn code where it sent one, else the nearest to its Connect code. */
export function guestError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown
  if (thrown instanceof LineLost) return new AppError('guest_error', 'The guest answers, but did not take the call up.')
  if (thrown instanceof ConnectError) {
    // What ended the call on our side comes back as its cause.
    if (
      thrown.cause instanceof AppError ||
      thrown.cause instanceof LineLost ||
      isErrno(thrown.cause, ...NOBODY_THERE)
    ) {
      return guestError(thrown.cause)
    }
    const named = codeNamed(thrown.metadata.get(ERROR_CODE_HEADER))
    return new AppError(named ?? codeOfConnect[thrown.code] ?? 'guest_error', thrown.rawMessage, { cause: thrown })
  }
  const code = isErrno(thrown, ...NOBODY_THERE) ? 'guest_unreachable' : 'guest_error'
  return new AppError(code, `The guest cannot be reached: ${errorText(thrown)}.`, { cause: thrown })
}

/** The guest gave no answer, good or bad. */
export function isNoAnswer({ code }: Pick<AppError, 'code'>): boolean {
  return code === 'guest_error' || code === 'guest_unreachable'
}

/** Its connection was refused or cut, which also befalls the last calls to a guest that ends. */
export function isCutLine({ code, cause }: AppError): boolean {
  if (code === 'guest_unreachable') return isErrno(cause, ...NOBODY_THERE)
  return code === 'guest_error' && cause instanceof ConnectError && isBrokenLine(cause)
}

/** Connection-level failures after which a stream may be resumed from its offset. */
export function isBrokenLine(thrown: unknown): boolean {
  if (!(thrown instanceof ConnectError)) return !(thrown instanceof AppError)
  if (thrown.metadata.has(ERROR_CODE_HEADER)) return false
  return thrown.code === Code.Unavailable || thrown.code === Code.Aborted || thrown.code === Code.Internal
}

/**
 * The body of an answer; an empty one is an empty object. One that is longer than `maxBytes` is broken off.
 * @throws AppError `guest_error` beyond `maxBytes`; SyntaxError for what is no JSON
 */
export async function readJson(answer: IncomingMessage, maxBytes: number = ANSWER_BYTES): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of within(maxBytes, answer)) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString('utf8')
  return text === '' ? {} : JSON.parse(text)
}

/** Lets an answer that nobody wants come to its end, so that its connection may be used again; one without an end is broken off. */
export async function discard(answer: IncomingMessage): Promise<void> {
  for await (const _ of within(ANSWER_BYTES, answer)) {
    // nothing of it is wanted
  }
}

/** Who leaves the loop over an answer ends its connection. */
async function* within(maxBytes: number, answer: IncomingMessage): AsyncGenerator<Buffer> {
  let bytes = 0
  for await (const chunk of answer) {
    bytes += chunk.length
    if (bytes > maxBytes)
      throw new AppError('guest_error', `The guest agent's answer is longer than ${maxBytes} bytes.`)
    yield chunk
  }
}
