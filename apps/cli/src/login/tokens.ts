import { AppError } from '@wrenn/base'
import { AuthenticationError, type SignedIn, Wrenn } from '@wrenn/sdk'
import type { Login, Logins } from './logins.js'

/** Requests take time, and clocks differ. */
const SPARE_MS = 60_000

/** What is kept of an answer to a login. @throws AppError `internal` for an answer without tokens */
export function loginOf({ token, refreshToken, ...signedIn }: SignedIn): Login {
  if (token === undefined || refreshToken === undefined) throw new AppError('internal', 'The login brought no tokens.')
  return {
    session_id: signedIn.sessionId,
    user_id: signedIn.userId,
    email: signedIn.email,
    token,
    expires_at: signedIn.expiresAt.toISOString(),
    refresh_token: refreshToken,
  }
}

/** Gives the access token of this moment, and gets the next one before it ends. @throws AppError `unauthorized` when the session is over */
export function tokenSource(logins: Logins, apiUrl: string, fetch: typeof globalThis.fetch): () => Promise<string> {
  let known: Login | undefined
  return async () => {
    if (known === undefined || isStale(known)) known = await freshLogin(logins, apiUrl, fetch)
    return known.token
  }
}

async function freshLogin(logins: Logins, apiUrl: string, fetch: typeof globalThis.fetch): Promise<Login> {
  const current = await logins.find(apiUrl)
  if (current !== undefined && !isStale(current)) return current
  const next = await logins.change(apiUrl, async (login) => {
    // Another process may have been here meanwhile.
    if (login === undefined || !isStale(login)) return login
    try {
      return loginOf(await new Wrenn({ apiUrl, fetch }).account.refresh(login.refresh_token))
    } catch (error) {
      if (error instanceof AuthenticationError && error.status === 401) return undefined
      throw error
    }
  })
  if (next !== undefined) return next
  throw new AppError('unauthorized', `Your login on ${apiUrl} is over. Log in again with \`wrenn login\`.`)
}

function isStale({ expires_at }: Login): boolean {
  return Date.parse(expires_at) - SPARE_MS < Date.now()
}
