import type { Failure } from './failure.js'

/** What the platform says in an address when a sign-in by a provider came to nothing. */
const sentences: Readonly<Record<string, readonly [sentence: string, hint?: string]>> = {
  access_denied: ['You were not let through there.', 'Try again, and allow it.'],
  invalid_state: [
    'This browser began no such sign-in, or it took longer than ten minutes.',
    'Begin again here; cookies must be allowed.',
  ],
  missing_code: ['The answer that came back was empty.', 'Begin again.'],
  exchange_failed: ['The answer that came back does not hold.', 'Begin again; if it stays so, tell your admin.'],
  provider_unavailable: ['The service that you chose does not answer.', 'Try again in a minute.'],
  account_deactivated: ['This account was disabled.', 'An admin of the platform can enable it.'],
  no_account: ['No account is connected with that.', 'Sign up, or sign in another way and connect it in the settings.'],
  email_taken: [
    'There is an account with that mail address already.',
    'Sign in to it another way, and connect it in the settings.',
  ],
  email_unverified: ['Your mail address is not verified there.', 'Verify it there, then begin again.'],
  signup_closed: ['Nobody can sign up here with that.', 'An admin of this platform can make you an account.'],
  already_linked: [
    'It is connected with another account, or yours is connected with somebody else there.',
    'Disconnect that first.',
  ],
  limit_exceeded: ['This was tried too often.', 'Try again in a quarter of an hour.'],
}

/** In words; `undefined` where nothing failed. @param code of the address bar, so anybody's words */
export function oauthFailure(code: string | null): Failure | undefined {
  if (code === null) return undefined
  const known = Object.hasOwn(sentences, code) ? sentences[code] : undefined
  const [sentence, hint] = known ?? ['The sign-in came to nothing.', 'Begin again.']
  return { sentence, hint, code: known === undefined ? 'internal_error' : code, requestId: undefined }
}

/** Where a browser goes to sign in or up, and back to the page that was asked for. */
export function loginUrlFor(loginUrl: string, intent: 'login' | 'signup', next: string | null): string {
  const query = new URLSearchParams({ intent, ...(next === null ? {} : { next }) })
  return `${loginUrl}?${query}`
}
