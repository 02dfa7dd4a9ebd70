import { AppError } from '@wrenn/base'
import {
  activateSchema,
  authSchema,
  loginSchema,
  refreshSchema,
  sessionIdSchema,
  sessionSchema,
  signedUpSchema,
  signUpSchema,
  switchTeamSchema,
} from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Opened } from '../../domain/people/index.js'
import { fromOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { clearCookies, refreshCookie, requireOwnPage, setCookies } from '../cookies.js'
import { errors, noContent, optionalBody } from '../schemas.js'

const open = { permission: 'public' } as const
const tags = ['accounts']
const rule =
  'Too many attempts are refused with 429 `limit_exceeded` and `Retry-After`: per address and place, so that who guesses elsewhere locks out nobody here.'

/** Whoever has no session yet, or none that is good just now. */
export function openAuthRoutes(app: App, { accounts, sessions }: Services): void {
  app.post(
    '/v1/auth/signup',
    {
      config: open,
      schema: {
        tags,
        summary: 'Sign up; a mail has the link that activates the account.',
        description: `The answer is the same for an address that has an account; its owner gets another mail. ${rule}`,
        security: [],
        body: signUpSchema,
        response: { 201: signedUpSchema, ...errors },
      },
    },
    async (request, reply) => {
      await accounts.signUp(request.body, fromOf(request))
      const message = 'If this address can have an account, a mail with the next step is on its way.'
      return await reply.status(201).send({ message })
    },
  )

  app.post(
    '/v1/auth/activate',
    {
      config: open,
      schema: {
        tags,
        summary: 'Activate an account with the token of its link, and log in.',
        security: [],
        body: activateSchema,
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { token, password, cookies } = request.body
      if (cookies) requireOwnPage(request)
      return answer(request, reply, await accounts.activate(token, password, fromOf(request)), cookies)
    },
  )

  app.post(
    '/v1/auth/login',
    {
      config: open,
      schema: {
        tags,
        summary: 'Log in with a password.',
        description: `Wrong addresses and wrong passwords have one answer. ${rule}`,
        security: [],
        body: loginSchema,
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { email, password, cookies } = request.body
      if (cookies) requireOwnPage(request)
      return answer(request, reply, await accounts.login(email, password, fromOf(request)), cookies)
    },
  )

  app.post(
    '/v1/auth/refresh',
    {
      config: open,
      schema: {
        tags,
        summary: 'The next tokens of a session.',
        description:
          'A refresh token is good once. The one before it has the same answer for 10 seconds, for tabs that refresh at once and answers that got lost; used later, it or an older one ends the session.',
        security: [],
        body: optionalBody(refreshSchema),
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const given = request.body.refresh_token
      const token = given ?? refreshCookie(request)
      if (token === undefined) throw new AppError('unauthorized', 'This call needs a refresh token.')
      if (given === undefined) requireOwnPage(request)
      return answer(request, reply, await sessions.refresh(token, fromOf(request)), given === undefined)
    },
  )
}

/** A person's sessions. */
export function authRoutes(app: App, { sessions }: Services): void {
  const config = { permission: 'account.use' } as const

  app.post(
    '/v1/auth/logout',
    {
      config,
      schema: { tags, summary: 'End this session.', response: { 204: noContent, ...errors } },
    },
    async (request, reply) => {
      const user = userOf(request)
      await sessions.revoke(user, user.sessionId, fromOf(request))
      clearCookies(request, reply)
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/auth/switch-team',
    {
      config,
      schema: {
        tags,
        summary: 'Work in another of your teams.',
        description: 'The tokens of the session stay as they are; the answer has one more.',
        body: switchTeamSchema,
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { token, ...moved } = await sessions.switchTeam(userOf(request), request.body.team_id, fromOf(request))
      void reply.header('cache-control', 'no-store')
      // A page goes on with its cookies.
      return request.headers.authorization === undefined ? moved : { token, ...moved }
    },
  )

  app.get(
    '/v1/auth/sessions',
    {
      config,
      schema: {
        tags,
        summary: 'List your sessions, the one used last first.',
        response: { 200: z.array(sessionSchema), ...errors },
      },
    },
    (request) => sessions.list(userOf(request)),
  )

  app.delete(
    '/v1/auth/sessions/:id',
    {
      config,
      schema: {
        tags,
        summary: 'End one of your sessions, everywhere within a second.',
        params: z.object({ id: sessionIdSchema }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await sessions.revoke(userOf(request), request.params.id, fromOf(request))
      return await reply.status(204).send()
    },
  )

  app.delete(
    '/v1/auth/sessions',
    {
      config,
      schema: { tags, summary: 'End all of your sessions but this one.', response: { 204: noContent, ...errors } },
    },
    async (request, reply) => {
      await sessions.revokeOthers(userOf(request), fromOf(request))
      return await reply.status(204).send()
    },
  )
}

/** Tokens are in the answer or in cookies, never in both. */
function answer(request: FastifyRequest, reply: FastifyReply, opened: Opened, cookies: boolean) {
  void reply.header('cache-control', 'no-store')
  if (!cookies) return opened
  setCookies(request, reply, opened)
  const { token: _, refresh_token: __, ...open } = opened
  return open
}
