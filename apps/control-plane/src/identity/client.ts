import {
  AuthorizationResponseError,
  allowInsecureRequests,
  type ClientAuth,
  ClientError,
  ClientSecretBasic,
  ClientSecretPost,
  type Configuration,
  ResponseBodyError,
  WWWAuthenticateChallengeError,
} from 'openid-client'
import { z } from 'zod'
import { type FailureReason, IdentityFailure } from './provider.js'
import { isLoopback } from './settings.js'

/** For each request to a provider; a person waits. */
export const TIMEOUT_SEC = 10

/** What providers answer when they, not we, are the reason. */
const passing = ['server_error', 'temporarily_unavailable']

/** What lets a client ask a provider that has no TLS, where it is on this machine. */
export function loopbackRule(url: string): readonly ((client: Configuration) => void)[] {
  return new URL(url).protocol === 'http:' && isLoopback(url) ? [allowInsecureRequests] : []
}

/**
 * Sends the secret in the way that the provider takes. In the body rather than in a header, where both are taken: servers do not agree on how a
 * header's is to be encoded (RFC 6749 §2.3.1).
 */
export function authenticateWith(secret: string): ClientAuth {
  const [post, basic] = [ClientSecretPost(secret), ClientSecretBasic(secret)]
  return (server, ...rest) => {
    // RFC 8414 §2: without the list it is the header.
    const methods = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
    return (methods.includes('client_secret_post') ? post : basic)(server, ...rest)
  }
}

/**
 * Why the library threw, without what the provider sent: that may hold tokens.
 * @param otherwise the reason where the error tells none
 */
export function failureFrom(error: unknown, otherwise: FailureReason): IdentityFailure {
  if (error instanceof IdentityFailure) return error
  if (error instanceof AuthorizationResponseError) {
    return new IdentityFailure(
      reasonOf(error.error),
      `the provider sent the person back with ${error.error.slice(0, 100)}`,
    )
  }
  if (error instanceof ResponseBodyError) {
    const reason = passing.includes(error.error) ? 'provider_unavailable' : reasonOfStatus(error.status, otherwise)
    return new IdentityFailure(reason, `the provider answered ${error.status} ${error.error.slice(0, 100)}`)
  }
  // So a wrong secret is told by some.
  if (error instanceof WWWAuthenticateChallengeError) {
    return new IdentityFailure(reasonOfStatus(error.status, otherwise), `the provider answered ${error.status}`)
  }
  if (error instanceof ClientError) {
    const status = error.cause instanceof Response ? error.cause.status : 0
    const reason = error.code === 'OAUTH_TIMEOUT' ? 'provider_unavailable' : reasonOfStatus(status, otherwise)
    const what = [error.code, error.message, status === 0 ? '' : status, hiddenError(error)]
      .filter((part) => part)
      .join(' ')
    return new IdentityFailure(reason, what)
  }
  // `fetch` says no more than that it failed.
  if (error instanceof TypeError) {
    const cause = error.cause instanceof Error ? error.cause.message : ''
    const isAway = /fetch failed/.test(error.message)
    return new IdentityFailure(isAway ? 'provider_unavailable' : otherwise, `${error.message} ${cause}`.trim())
  }
  throw error
}

function reasonOf(code: string): FailureReason {
  if (code === 'access_denied') return 'access_denied'
  return passing.includes(code) ? 'provider_unavailable' : 'exchange_failed'
}

const hiddenErrorSchema = z.object({ cause: z.object({ cause: z.object({ body: z.object({ error: z.string() }) }) }) })

/** GitHub answers 200 where it refuses, so the library finds no token instead of an error. */
function hiddenError(error: ClientError): string {
  const parsed = hiddenErrorSchema.safeParse({ cause: error.cause })
  return parsed.success ? parsed.data.cause.cause.body.error.slice(0, 100) : ''
}

function reasonOfStatus(status: number, otherwise: FailureReason): FailureReason {
  return status >= 500 ? 'provider_unavailable' : otherwise
}

/** Neither a code nor an error came back. @throws IdentityFailure */
export function requireAnswer({ searchParams }: URL): void {
  if (searchParams.has('code') || searchParams.has('error')) return
  throw new IdentityFailure('missing_code', 'the provider sent the person back without a code')
}
