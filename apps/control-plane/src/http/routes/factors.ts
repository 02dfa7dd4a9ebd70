import {
  addPasskeySchema,
  confirmTotpSchema,
  factorsSchema,
  newPasskeySchema,
  passkeyIdSchema,
  passkeyOptionsSchema,
  passkeySchema,
  recoveryCodesSchema,
  renamePasskeySchema,
  totpEnrolmentSchema,
  userIdSchema,
} from '@wrenn/protocol'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import { actorOf, fromOf, principalOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const tags = ['accounts']
const fresh = 'Needs a login or a POST /v1/auth/confirm of the last 10 minutes.'
const config = { permission: 'account.use' } as const

/** What one has beside a password. */
export function factorRoutes(app: App, services: Services): void {
  const { factors } = services
  app.get(
    '/v1/me/factors',
    {
      config,
      schema: { tags, summary: 'What you have beside a password.', response: { 200: factorsSchema, ...errors } },
    },
    (request) => factors.list(userOf(request)),
  )
  totpRoutes(app, services)
  passkeyRoutes(app, services)
  app.delete(
    '/v1/admin/users/:id/factors',
    {
      config: { permission: 'users.write' },
      schema: {
        tags,
        summary: 'Remove the authenticator app, the passkeys and the recovery codes of somebody who has lost them.',
        description: 'They are told by mail. Their password stays as it is, and is then enough.',
        params: z.object({ id: userIdSchema }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await factors.removeAll(principalOf(request), request.params.id, actorOf(request))
      return await reply.status(204).send()
    },
  )
}

function totpRoutes(app: App, { factors }: Services): void {
  app.post(
    '/v1/me/factors/totp',
    {
      config,
      schema: {
        tags,
        summary: 'Begin to add an authenticator app; it counts once a code of it is confirmed.',
        description: fresh,
        response: { 201: totpEnrolmentSchema, ...errors },
      },
    },
    async (request, reply) =>
      await secret(reply)
        .status(201)
        .send(await factors.beginTotp(userOf(request))),
  )

  app.post(
    '/v1/me/factors/totp/confirm',
    {
      config,
      schema: {
        tags,
        summary: 'Add the app with a code that it shows; all your other sessions end.',
        description: `The first factor comes with recovery codes. ${fresh}`,
        body: confirmTotpSchema,
        response: { 200: recoveryCodesSchema, ...errors },
      },
    },
    async (request, reply) =>
      await secret(reply).send(await factors.confirmTotp(userOf(request), request.body.code, fromOf(request))),
  )

  app.delete(
    '/v1/me/factors/totp',
    {
      config,
      schema: { tags, summary: 'Remove the app.', description: fresh, response: { 204: noContent, ...errors } },
    },
    async (request, reply) => {
      await factors.removeTotp(userOf(request), fromOf(request))
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/me/factors/recovery-codes',
    {
      config,
      schema: {
        tags,
        summary: 'Ten new recovery codes; those that there were are good no more.',
        description: fresh,
        response: { 200: recoveryCodesSchema, ...errors },
      },
    },
    async (request, reply) =>
      await secret(reply).send(await factors.newRecoveryCodes(userOf(request), fromOf(request))),
  )
}

function passkeyRoutes(app: App, { factors }: Services): void {
  const params = z.object({ id: passkeyIdSchema })

  app.post(
    '/v1/me/factors/passkeys/options',
    {
      config,
      schema: {
        tags,
        summary: 'What a browser makes a passkey with.',
        description: fresh,
        response: { 200: passkeyOptionsSchema, ...errors },
      },
    },
    async (request) => ({ ...(await factors.passkeyOptions(userOf(request))) }),
  )

  app.post(
    '/v1/me/factors/passkeys',
    {
      config,
      schema: {
        tags,
        summary: 'Add the passkey that a browser has made; all your other sessions end.',
        description: `The first factor comes with recovery codes. ${fresh}`,
        body: addPasskeySchema,
        response: { 201: newPasskeySchema, ...errors },
      },
    },
    async (request, reply) => {
      const added = await factors.addPasskey(userOf(request), request.body, fromOf(request))
      return await secret(reply).status(201).send(added)
    },
  )

  app.patch(
    '/v1/me/factors/passkeys/:id',
    {
      config,
      schema: {
        tags,
        summary: 'Rename a passkey.',
        params,
        body: renamePasskeySchema,
        response: { 200: passkeySchema, ...errors },
      },
    },
    (request) => factors.renamePasskey(userOf(request), request.params.id, request.body.name, fromOf(request)),
  )

  app.delete(
    '/v1/me/factors/passkeys/:id',
    {
      config,
      schema: {
        tags,
        summary: 'Remove a passkey.',
        description: fresh,
        params,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await factors.removePasskey(userOf(request), request.params.id, fromOf(request))
      return await reply.status(204).send()
    },
  )
}

/** Of answers that show what is shown once. */
function secret<Reply extends Pick<FastifyReply, 'header'>>(reply: Reply): Reply {
  void reply.header('cache-control', 'no-store')
  return reply
}
