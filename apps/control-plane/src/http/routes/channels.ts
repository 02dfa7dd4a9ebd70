import {
  channelIdSchema,
  channelSchema,
  channelSecretSchema,
  channelTestSchema,
  createChannelSchema,
  deliveryIdSchema,
  deliveryPageSchema,
  deliverySchema,
  listChannelsQuerySchema,
  listDeliveriesQuerySchema,
  newChannelSchema,
  replaceChannelConfigSchema,
  resentSchema,
  testChannelSchema,
  updateChannelSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const channelParams = z.object({ id: channelIdSchema })
const deliveryParams = z.object({ id: channelIdSchema, delivery_id: deliveryIdSchema })
const read = { permission: 'channels.read' } as const
const write = { permission: 'channels.write' } as const

/** Where the team wants its events sent to. */
export function channelRoutes(app: App, services: Services): void {
  makeAndFind(app, services)
  change(app, services)
  test(app, services)
  log(app, services)
}

function makeAndFind(app: App, { channels }: Services): void {
  app.post(
    '/v1/channels',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Have events of the team sent somewhere: a webhook or a chat.',
        description:
          'Of a webhook this answer has the secret that its requests are signed with, and no other has. Only public addresses are sent to, by https, unless the operator allows others, else 400 `target_refused`. A team has 100 channels at most, else 429 `limit_exceeded`.',
        body: createChannelSchema,
        response: { 201: newChannelSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await channels.create(principalOf(request), request.body, actorOf(request))
      return await reply.header('cache-control', 'no-store').status(201).send(made)
    },
  )

  app.get(
    '/v1/channels',
    {
      config: read,
      schema: {
        tags: ['channels'],
        summary: 'List the channels of the team, newest first.',
        description: 'The header `x-next-token` is the cursor of the next page; absent on the last one.',
        querystring: listChannelsQuerySchema,
        response: { 200: z.array(channelSchema), ...errors },
      },
    },
    async (request, reply) => {
      const { items, nextCursor } = await channels.list(principalOf(request).teamId, request.query)
      if (nextCursor !== undefined) void reply.header('x-next-token', nextCursor)
      return items
    },
  )

  app.get(
    '/v1/channels/:id',
    {
      config: read,
      schema: {
        tags: ['channels'],
        summary: 'One channel, and how it does.',
        params: channelParams,
        response: { 200: channelSchema, ...errors },
      },
    },
    (request) => channels.get(principalOf(request).teamId, request.params.id),
  )
}

function change(app: App, { channels }: Services): void {
  app.patch(
    '/v1/channels/:id',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Give a channel another name or other events, or switch it off and on.',
        description: 'What waits is tried at once.',
        params: channelParams,
        body: updateChannelSchema,
        response: { 200: channelSchema, ...errors },
      },
    },
    (request) => channels.update(principalOf(request), request.params.id, request.body, actorOf(request)),
  )

  app.put(
    '/v1/channels/:id/config',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Address a channel with something else: all of its config.',
        params: channelParams,
        body: replaceChannelConfigSchema,
        response: { 200: channelSchema, ...errors },
      },
    },
    async (request) => {
      const { id } = request.params
      return await channels.replaceConfig(principalOf(request), id, request.body.config, actorOf(request))
    },
  )

  app.post(
    '/v1/channels/:id/rotate-secret',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Make another secret for a webhook, which is in this answer and nowhere else.',
        description: 'For 24 hours `webhook-signature` has a signature by each of the two.',
        params: channelParams,
        response: { 200: channelSecretSchema, ...errors },
      },
    },
    async (request, reply) => {
      void reply.header('cache-control', 'no-store')
      return await channels.rotateSecret(principalOf(request).teamId, request.params.id, actorOf(request))
    },
  )

  app.delete(
    '/v1/channels/:id',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Delete a channel, with what it was still to send and its log.',
        params: channelParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await channels.remove(principalOf(request).teamId, request.params.id, actorOf(request))
      return await reply.status(204).send()
    },
  )
}

function test(app: App, { channels }: Services): void {
  app.post(
    '/v1/channels/test',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Send a message to a target before it is saved.',
        description: 'The event `channel.test`. 502 `channel_test_failed` says what came back.',
        body: testChannelSchema,
        response: { 200: channelTestSchema, ...errors },
      },
    },
    (request) => channels.test(principalOf(request).teamId, request.body),
  )

  app.post(
    '/v1/channels/:id/test',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Send a message through a channel, past what waits.',
        params: channelParams,
        response: { 200: channelTestSchema, ...errors },
      },
    },
    (request) => channels.testSaved(principalOf(request).teamId, request.params.id),
  )
}

function log(app: App, { channelLog }: Services): void {
  app.get(
    '/v1/channels/:id/deliveries',
    {
      config: read,
      schema: {
        tags: ['channels'],
        summary: 'What became of each event at a channel, newest first, with the last request and answer.',
        params: channelParams,
        querystring: listDeliveriesQuerySchema,
        response: { 200: deliveryPageSchema, ...errors },
      },
    },
    (request) => channelLog.list(principalOf(request).teamId, request.params.id, request.query),
  )

  app.post(
    '/v1/channels/:id/deliveries/:delivery_id/resend',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Send one again, under the id that it has.',
        params: deliveryParams,
        response: { 202: deliverySchema, ...errors },
      },
    },
    async (request, reply) => {
      const { id, delivery_id: deliveryId } = request.params
      const again = await channelLog.resend(principalOf(request).teamId, id, deliveryId, actorOf(request))
      return await reply.status(202).send(again)
    },
  )

  app.post(
    '/v1/channels/:id/resend',
    {
      config: write,
      schema: {
        tags: ['channels'],
        summary: 'Send all again that were given up, in their order.',
        params: channelParams,
        response: { 202: resentSchema, ...errors },
      },
    },
    async (request, reply) => {
      const resent = await channelLog.resendDead(principalOf(request).teamId, request.params.id, actorOf(request))
      return await reply.status(202).send({ resent })
    },
  )
}
