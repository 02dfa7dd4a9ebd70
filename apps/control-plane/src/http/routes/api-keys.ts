import {
  apiKeyIdSchema,
  apiKeySchema,
  createApiKeySchema,
  listApiKeysQuerySchema,
  newApiKeySchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent, optionalBody } from '../schemas.js'

/** The keys of the team. */
export function apiKeyRoutes(app: App, { keyAdmin }: Services): void {
  app.post(
    '/v1/api-keys',
    {
      config: { permission: 'keys.write' },
      schema: {
        tags: ['keys'],
        summary: 'Make a key, which is in this answer and nowhere else.',
        description: 'It may do no more than the key that asks, and lives no longer.',
        body: optionalBody(createApiKeySchema),
        response: { 201: newApiKeySchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await keyAdmin.create(principalOf(request), request.body, actorOf(request))
      return await reply.header('cache-control', 'no-store').status(201).send(made)
    },
  )

  app.get(
    '/v1/api-keys',
    {
      config: { permission: 'keys.read' },
      schema: {
        tags: ['keys'],
        summary: 'List the keys of the team that are not revoked, newest first.',
        description:
          'Expired ones are listed for 30 more days. The header `x-next-token` is the cursor of the next page; absent on the last one.',
        querystring: listApiKeysQuerySchema,
        response: { 200: z.array(apiKeySchema), ...errors },
      },
    },
    async (request, reply) => {
      const { items, nextCursor } = await keyAdmin.list(principalOf(request).teamId, request.query)
      if (nextCursor !== undefined) void reply.header('x-next-token', nextCursor)
      return items
    },
  )

  app.delete(
    '/v1/api-keys/:id',
    {
      config: { permission: 'keys.write' },
      schema: {
        tags: ['keys'],
        summary: 'Revoke a key; repeats succeed.',
        description:
          'Within a second every control plane refuses it and ends the sockets that it opened. The last key that may do everything and does not expire cannot be revoked.',
        params: z.object({ id: apiKeyIdSchema }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await keyAdmin.revoke(principalOf(request), request.params.id, actorOf(request))
      return await reply.status(204).send()
    },
  )
}
