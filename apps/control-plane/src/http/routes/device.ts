import {
  authSchema,
  beginDeviceLoginSchema,
  decideDeviceSchema,
  deviceLoginSchema,
  devicePendingSchema,
  deviceTokenSchema,
  userCodeSchema,
  waitingDeviceSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { fromOf, userOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const tags = ['accounts']

/** For programs that have no page: they wait until a person lets them in. */
export function openDeviceRoutes(app: App, { deviceLogins }: Services): void {
  const config = { permission: 'public' } as const

  app.post(
    '/v1/auth/device',
    {
      config,
      schema: {
        tags,
        summary: 'Begin a login of a program, which a person approves in the browser.',
        description: 'Show the code and the link, and ask POST /v1/auth/device/token until somebody has decided.',
        security: [],
        body: beginDeviceLoginSchema,
        response: { 201: deviceLoginSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await reply.status(201).send(await deviceLogins.begin(request.body, fromOf(request)))
    },
  )

  app.post(
    '/v1/auth/device/token',
    {
      config,
      schema: {
        tags,
        summary: 'Get the session of a login that was approved; 202 while nobody has decided.',
        security: [],
        body: deviceTokenSchema,
        response: { 200: authSchema, 202: devicePendingSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      const opened = await deviceLogins.finish(request.body.device_code, fromOf(request))
      if (opened === undefined) return await reply.status(202).send({ status: 'pending' })
      return await reply.status(200).send(opened)
    },
  )
}

/** For the person who is asked. */
export function deviceRoutes(app: App, { deviceLogins }: Services): void {
  const config = { permission: 'account.use' } as const
  const params = z.object({ code: userCodeSchema })

  app.get(
    '/v1/auth/device/:code',
    {
      config,
      schema: { tags, summary: 'See which program waits.', params, response: { 200: waitingDeviceSchema, ...errors } },
    },
    (request) => deviceLogins.look(request.params.code, userOf(request)),
  )

  app.post(
    '/v1/auth/device/:code',
    {
      config,
      schema: {
        tags,
        summary: 'Let a program in as you, or send it away.',
        description: 'Its session is one of yours: it is listed and ended with the others.',
        params,
        body: decideDeviceSchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await deviceLogins.decide(request.params.code, request.body.approve, userOf(request), fromOf(request))
      return await reply.status(204).send()
    },
  )
}
