import { createHash, timingSafeEqual } from 'node:crypto'
import { AppError } from './errors.js'

type FileOperation = 'read' | 'write'

interface SignedRequest {
  /** Exactly as the client passed it. */
  readonly path: string
  readonly operation: FileOperation
  /** Empty when the client named none. */
  readonly user: string
  /** Unix seconds, as text; absent for a signature that does not expire. */
  readonly expiration: string | undefined
}

/** The signature that lets a plain URL read or write one file, as existing clients compute it. */
export function signatureOf(request: SignedRequest, token: string): string {
  const { path, operation, user, expiration } = request
  const parts = [path, operation, user, token, ...(expiration === undefined ? [] : [expiration])]
  return `v1_${createHash('sha256').update(parts.join(':')).digest('base64').replace(/=+$/, '')}`
}

/** @throws AppError `unauthorized` */
export function verifySignature(given: string | undefined, request: SignedRequest, token: string | undefined): void {
  if (given === undefined || token === undefined)
    throw new AppError('unauthorized', 'missing signature query parameter')
  const expected = Buffer.from(signatureOf(request, token))
  const actual = Buffer.from(given)
  if (expected.length !== actual.length || !timingSafeEqual(expected, actual)) {
    throw new AppError('unauthorized', 'invalid signature')
  }
  if (request.expiration !== undefined && !(Number(request.expiration) > Date.now() / 1000)) {
    throw new AppError('unauthorized', 'signature is already expired')
  }
}
