import { AppError } from '@wrenn/base'
import {
  authSchema,
  beginOauthQuerySchema,
  connectProviderSchema,
  oauthTokenSchema,
  providerIdSchema,
  providerSchema,
  secondFactorNeededSchema,
} from '@wrenn/protocol'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import type { OauthOutcome } from '../../domain/people/index.js'
import { fromOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { keepBrowserSecret, requireOwnPage, takeBrowserSecret } from '../cookies.js'
import { errors, noContent } from '../schemas.js'
import { answerLoginResult } from './login-answer.js'

const tags = ['accounts']
const params = z.object({ provider: providerIdSchema })
const redirect = z.void().describe('The way on, in the header `Location`.')

/** Signing in by a provider, for whoever has no session. */
export function openOauthRoutes(app: App, { oauthLogins }: Services): void {
  const config = { permission: 'public' } as const
  const { publicUrl } = oauthLogins
  const isSecure = publicUrl.startsWith('https:')

  app.get(
    '/v1/auth/providers',
    {
      config,
      schema: {
        tags,
        summary: 'List the providers that people can sign in with.',
        security: [],
        response: { 200: z.array(providerSchema), ...errors },
      },
    },
    () => oauthLogins.list(),
  )

  app.get(
    '/auth/oauth/:provider',
    {
      config,
      schema: {
        tags,
        summary: 'Sign in with a provider: a browser goes here, and on to it.',
        description:
          'It comes back to a page: with `error` in the query, or with a `code` behind `#` that POST /v1/auth/oauth/token gives a session for.',
        security: [],
        params,
        querystring: beginOauthQuerySchema,
        response: { 302: redirect, ...errors },
      },
    },
    async (request, reply) => {
      const { provider } = request.params
      const { intent, next } = request.query
      oauthLogins.require(provider)
      const browser = keepBrowserSecret(request, reply, isSecure)
      try {
        const url = await oauthLogins.begin(provider, { intent, next }, browser, fromOf(request))
        return await leadTo(reply, url.href)
      } catch (error) {
        // A person in a browser is better served with a page.
        const known = AppError.is(error, 'limit_exceeded') ? 'limit_exceeded' : undefined
        const code = AppError.is(error, 'provider_unavailable') ? 'provider_unavailable' : known
        if (code === undefined) throw error
        return await leadTo(reply, pageAfter(publicUrl, provider, { intent, next, result: { error: code } }))
      }
    },
  )

  app.get(
    '/auth/oauth/:provider/callback',
    {
      config,
      schema: {
        tags,
        summary: 'Where a provider sends the browser back to.',
        security: [],
        params,
        response: { 302: redirect, ...errors },
      },
    },
    async (request, reply) => {
      const { provider } = request.params
      const query = request.url.split('?', 2)[1] ?? ''
      const outcome = await oauthLogins.answer(provider, query, takeBrowserSecret(request, isSecure), fromOf(request))
      return await leadTo(reply, pageAfter(publicUrl, provider, outcome))
    },
  )

  app.post(
    '/v1/auth/oauth/token',
    {
      config,
      schema: {
        tags,
        summary: 'Get the session of a sign-in by a provider.',
        description:
          'By the browser that made the sign-in, whose cookie shows it; once, within 60 seconds. Who has a second factor is asked for it, as by POST /v1/auth/login.',
        security: [],
        body: oauthTokenSchema,
        response: { 200: z.union([authSchema, secondFactorNeededSchema]), ...errors },
      },
    },
    async (request, reply) => {
      requireOwnPage(request)
      const { code, restore, cookies } = request.body
      const browser = takeBrowserSecret(request, isSecure)
      const opened = await oauthLogins.open(code, browser, fromOf(request), { restore })
      return answerLoginResult(request, reply, opened, cookies)
    },
  )
}

/** Connecting one's own account. */
export function oauthRoutes(app: App, { oauthLogins }: Services): void {
  const config = { permission: 'account.use' } as const
  const { publicUrl } = oauthLogins

  app.post(
    '/v1/me/providers/:provider/connect',
    {
      config,
      schema: {
        tags,
        summary: 'Connect your account with a provider, to sign in with it from then on.',
        description:
          'The browser that asks goes to the answer’s address, and comes back to the settings with `connected` or `connect_error` in the query.',
        params,
        response: { 200: connectProviderSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { origin } = request.headers
      // The provider sends the browser back to the public address, where no cookie of another one is.
      if (origin !== undefined && origin !== new URL(publicUrl).origin) {
        throw new AppError('invalid_request', `Connect your account at ${publicUrl}; this page has another address.`)
      }
      const browser = keepBrowserSecret(request, reply, publicUrl.startsWith('https:'))
      const wish = { intent: 'link', principal: userOf(request) } as const
      const url = await oauthLogins.begin(request.params.provider, wish, browser, fromOf(request))
      void reply.header('cache-control', 'no-store')
      return { auth_url: url.href }
    },
  )

  app.delete(
    '/v1/me/providers/:provider',
    {
      config,
      schema: {
        tags,
        summary: 'Disconnect your account from a provider; the last way to sign in stays.',
        params,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await oauthLogins.disconnect(userOf(request), request.params.provider, fromOf(request))
      return await reply.status(204).send()
    },
  )
}

async function leadTo(reply: FastifyReply, url: string): Promise<FastifyReply> {
  void reply.header('cache-control', 'no-store').header('referrer-policy', 'no-referrer')
  return await reply.redirect(url, 302)
}

/** A code goes behind `#`: browsers send that to no server, so it is in no log. */
function pageAfter(publicUrl: string, provider: string, { intent, next, result }: OauthOutcome): string {
  if (intent === 'link') {
    const told = result === 'linked' ? { connected: provider } : { connect_error: errorIn(result), provider }
    return `${publicUrl}/dashboard/settings?${new URLSearchParams(told)}`
  }
  const query = new URLSearchParams(next === undefined ? {} : { next })
  if (typeof result === 'object' && 'code' in result) {
    return `${publicUrl}/auth/callback?${query}#code=${result.code}`
  }
  query.set('error', errorIn(result))
  query.set('provider', provider)
  return `${publicUrl}/${intent === 'signup' ? 'signup' : 'login'}?${query}`
}

function errorIn(result: OauthOutcome['result']): string {
  return typeof result === 'object' && 'error' in result ? result.error : 'internal_error'
}
