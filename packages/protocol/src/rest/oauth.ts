import { z } from 'zod'
import { requestBody, text } from './common.js'
import { cookiesField, restoreField } from './login-fields.js'

/** Also a path segment, and with `_` for `-` a part of the names of its settings. */
export const providerIdSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/, 'must be the id of a provider: letters, digits and dashes')

/** Why a sign-in by a provider came to nothing, as the query of the page that it leads back to says it. */
export const oauthErrors = [
  'access_denied',
  'invalid_state',
  'missing_code',
  'exchange_failed',
  'provider_unavailable',
  'account_deactivated',
  'no_account',
  'email_taken',
  'email_unverified',
  'signup_closed',
  'already_linked',
  'limit_exceeded',
  'internal_error',
] as const
/** One of {@link oauthErrors}. */
export type OauthError = (typeof oauthErrors)[number]

/** Query of `GET /auth/oauth/{provider}`. */
export const beginOauthQuerySchema = z.object({
  intent: z.enum(['login', 'signup']).default('login').describe('`signup` makes an account for who has none.'),
  next: text(1024).optional().describe('Path of the page to go to afterwards.'),
})
/** As the server reads it. */
export type BeginOauthQuery = z.output<typeof beginOauthQuerySchema>

/** A provider that people can sign in with. */
export const providerSchema = z
  .object({
    id: z.string(),
    name: z.string().describe('For people.'),
    login_url: z.string().describe('Where a browser goes to sign in with it; takes `intent` and `next`.'),
  })
  .meta({ id: 'Provider' })
/** On the wire. */
export type Provider = z.infer<typeof providerSchema>

/** Body of `POST /v1/auth/oauth/token`. */
export const oauthTokenSchema = requestBody({
  code: text(256, 1).describe(
    'Of the address that the sign-in led to. Good once, for 60 seconds, in the same browser.',
  ),
  restore: restoreField,
  cookies: cookiesField,
}).meta({ id: 'OauthToken' })

/** Answer to who wants to connect an account with a provider. */
export const connectProviderSchema = z
  .object({ auth_url: z.string().describe('Where this browser goes next; good for 10 minutes.') })
  .meta({ id: 'ConnectProvider' })
/** On the wire. */
export type ConnectProvider = z.infer<typeof connectProviderSchema>
