import {
  changePasswordSchema,
  confirmResetSchema,
  deleteMeSchema,
  deletionSchema,
  type Me,
  meSchema,
  requestResetSchema,
  updateMeSchema,
} from '@wrenn/protocol'
import type { UserPrincipal } from '../../domain/accounts/index.js'
import { fromOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { clearCookies } from '../cookies.js'
import { errors, noContent } from '../schemas.js'

const tags = ['accounts']

/** One's own account. */
export function meRoutes(app: App, { accountEnds, accounts, lifecycle }: Services): void {
  const config = { permission: 'account.use' } as const
  const meOf = async (user: UserPrincipal): Promise<Me> => ({
    ...(await accounts.me(user)),
    features: lifecycle.canHibernate ? ['hibernation'] : [],
  })

  app.get(
    '/v1/me',
    { config, schema: { tags, summary: 'Your account.', response: { 200: meSchema, ...errors } } },
    (request) => meOf(userOf(request)),
  )

  app.patch(
    '/v1/me',
    {
      config,
      schema: { tags, summary: 'Change your name.', body: updateMeSchema, response: { 200: meSchema, ...errors } },
    },
    async (request) => {
      await accounts.rename(userOf(request), request.body.name, fromOf(request))
      return await meOf(userOf(request))
    },
  )

  app.delete(
    '/v1/me',
    {
      config,
      schema: {
        tags,
        summary: 'Delete your account.',
        description:
          'Needs a login or a POST /v1/auth/confirm of the last 10 minutes. At once all your sessions end, and the keys that you made. Until `erase_at` a login with `restore` takes it back; then teams that you alone are in end, and of you an id is left; addresses of networks stay in audit trails for their time. Whoever owns a team with others in it hands it over first (409 `owns_team_with_members`).',
        body: deleteMeSchema,
        response: { 202: deletionSchema, ...errors },
      },
    },
    async (request, reply) => {
      const eraseAt = await accountEnds.request(userOf(request), request.body.confirmation, fromOf(request))
      clearCookies(request, reply)
      return await reply.status(202).send({ erase_at: eraseAt.toISOString() })
    },
  )

  app.post(
    '/v1/me/password',
    {
      config,
      schema: {
        tags,
        summary: 'Change your password; all your other sessions end.',
        body: changePasswordSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await accounts.changePassword(userOf(request), request.body, fromOf(request))
      return await reply.status(204).send()
    },
  )
}

/** For who cannot log in any more. */
export function resetRoutes(app: App, { accounts }: Services): void {
  const config = { permission: 'public' } as const

  app.post(
    '/v1/me/password/reset',
    {
      config,
      schema: {
        tags,
        summary: 'Have a link sent that lets you choose another password; it is good for 15 minutes.',
        description: 'The answer is the same for an address that has no account.',
        security: [],
        body: requestResetSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await accounts.requestReset(request.body.email, fromOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/me/password/reset/confirm',
    {
      config,
      schema: {
        tags,
        summary: 'Choose another password with the token of the link; all your sessions end.',
        security: [],
        body: confirmResetSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const { token, new_password } = request.body
      await accounts.confirmReset(token, new_password, fromOf(request))
      return await reply.status(204).send()
    },
  )
}
