import {
  authSchema,
  passkeyLoginSchema,
  passkeyOptionsSchema,
  secondFactorPasskeySchema,
  secondFactorSchema,
} from '@wrenn/protocol'
import { fromOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { answerOpened, requireOwnPage } from '../cookies.js'
import { errors } from '../schemas.js'

const tags = ['accounts']
const config = { permission: 'public' } as const

/** Logins with more than a password, or without one. */
export function openLoginStepRoutes(app: App, { passkeyLogins, secondFactors }: Services): void {
  app.post(
    '/v1/auth/second-factor',
    {
      config,
      schema: {
        tags,
        summary: 'End a login that needs a second factor.',
        description:
          'Once, within 5 minutes, from the place where the login began; after 5 wrong codes another login has to begin. Wrong ones are also counted for the account: too many are 429 `limit_exceeded`.',
        security: [],
        body: secondFactorSchema,
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { token, cookies, ...proof } = request.body
      if (cookies) requireOwnPage(request)
      return answerOpened(request, reply, await secondFactors.finish(token, proof, fromOf(request)), cookies)
    },
  )

  app.post(
    '/v1/auth/second-factor/passkey',
    {
      config,
      schema: {
        tags,
        summary: 'What a passkey is asked to sign, as the second factor of a login.',
        security: [],
        body: secondFactorPasskeySchema,
        response: { 200: passkeyOptionsSchema, ...errors },
      },
    },
    async (request) => ({ ...(await secondFactors.passkeyOptions(request.body.token, fromOf(request))) }),
  )

  app.post(
    '/v1/auth/passkey/options',
    {
      config,
      schema: {
        tags,
        summary: 'What a passkey is asked to sign, to log in without a password.',
        security: [],
        response: { 200: passkeyOptionsSchema, ...errors },
      },
    },
    async (request) => ({ ...(await passkeyLogins.options(fromOf(request))) }),
  )

  app.post(
    '/v1/auth/passkey',
    {
      config,
      schema: {
        tags,
        summary: 'Log in with a passkey that makes sure that its owner is there; it is both factors.',
        security: [],
        body: passkeyLoginSchema,
        response: { 200: authSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { passkey, restore, cookies } = request.body
      if (cookies) requireOwnPage(request)
      return answerOpened(request, reply, await passkeyLogins.finish(passkey, fromOf(request), { restore }), cookies)
    },
  )
}
