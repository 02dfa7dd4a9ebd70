import { AppError } from '@wrenn/base'
import {
  activateSchema,
  authSchema,
  confirmSchema,
  loginSchema,
  passkeyOptionsSchema,
  refreshSchema,
  secondFactorNeededSchema,
  sessionIdSchema,
  sessionSchema,
  setUpSchema,
  signedUpSchema,
  signUpSchema,
  switchTeamSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { fromOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { answerOpened, clearCookies, refreshCookie, requireOwnPage } from '../cookies.js'
import { errors, noContent, optionalBody } from '../schemas.js'
import { answerLoginResult } from './login-answer.js'

const open = { permission: 'public' } as const
const tags = ['accounts']
const rule =
  'Too many attempts are refused with 429 `limit_exceeded` and `Retry-After`: per address and place, so that who guesses elsewhere locks out nobody here.'

/** Whoever has no session yet, or none that is good just now. */
export function openAuthRoutes(app: App, { accounts, sessions, setUp }: Services): void {
  app.post(
    '/v1/auth/setup',
    {
      config: open,
      schema: {
        tags,
        summary: 'Make the first account with the code of the link that `wrenn up` prints, and log in.',
        description:
          'It is active, admin of the platform and owner of the first team. Of several at once one succeeds; once there is an account all others are 409 `conflict`. Too many attempts from one place are refused with 429 `limit_exceeded`.',
        security: [],
        body: setUpSchema,
        response: { 201: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { cookies, ...input } = request.body
      if (cookies) requireOwnPage(request)
      const opened = await setUp.finish(input, fromOf(request))
      return await reply.status(201).send(answerOpened(request, reply, opened, cookies))
    },
  )

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
      return answerOpened(request, reply, await accounts.activate(token, password, fromOf(request)), cookies)
    },
  )

  app.post(
    '/v1/auth/login',
    {
      config: open,
      schema: {
        tags,
        summary: 'Log in with a password.',
        description: `Wrong addresses and wrong passwords have one answer. Who has deleted the account is told so by 403 \`deletion_pending\` while it can be taken back. Who has a second factor is asked for it: the answer has \`second_factor\`, and there is no session before POST /v1/auth/second-factor. ${rule}`,
        security: [],
        body: loginSchema,
        response: { 200: z.union([authSchema, secondFactorNeededSchema]), ...errors },
      },
    },
    async (request, reply) => {
      const { email, password, restore, cookies } = request.body
      if (cookies) requireOwnPage(request)
      const result = await accounts.login(email, password, fromOf(request), { restore })
      return answerLoginResult(request, reply, result, cookies)
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
      try {
        return answerOpened(request, reply, await sessions.refresh(token, fromOf(request)), given === undefined)
      } catch (error) {
        // What is over is no use to the page, which would ask again and again.
        if (given === undefined && AppError.is(error, 'unauthorized')) clearCookies(request, reply)
        throw error
      }
    },
  )
}

/** A person's sessions. */
export function authRoutes(app: App, { confirmations, sessions }: Services): void {
  const config = { permission: 'account.use' } as const

  app.post(
    '/v1/auth/confirm',
    {
      config,
      schema: {
        tags,
        summary: 'Prove anew that this session is yours, for 10 minutes.',
        description: 'What cannot be undone, or lets others in, needs it, as a login does it too.',
        body: confirmSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const { password, passkey } = request.body
      if (passkey !== undefined) await confirmations.byPasskey(userOf(request), passkey, fromOf(request))
      else await confirmations.byPassword(userOf(request), password ?? '', fromOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/auth/confirm/passkey',
    {
      config,
      schema: {
        tags,
        summary: 'What one of your passkeys is asked to sign, to confirm.',
        response: { 200: passkeyOptionsSchema, ...errors },
      },
    },
    async (request) => ({ ...(await confirmations.passkeyOptions(userOf(request))) }),
  )

  app.post(
    '/v1/auth/logout',
    {
      config,
      schema: { tags, summary: 'End this session.', response: { 204: noContent, ...errors } },
    },
    async (request, reply) => {
      const user = userOf(request)
      // Also when the session has ended meanwhile.
      clearCookies(request, reply)
      await sessions.revoke(user, user.sessionId, fromOf(request))
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
