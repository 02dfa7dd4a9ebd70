import {
  anyCapsulePageSchema,
  capsuleIdSchema,
  listAnyCapsulesQuerySchema,
  platformHealthSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

/** For admins of the platform: what is on it, and how it does. */
export function platformRoutes(app: App, { allCapsules, unknownCapsules, platformWatch }: Services): void {
  app.get(
    '/v1/admin/capsules',
    {
      config: { permission: 'teams.read' },
      schema: {
        tags: ['system'],
        summary: 'List the capsules of all teams that are not stopped, newest first.',
        querystring: listAnyCapsulesQuerySchema,
        response: { 200: anyCapsulePageSchema, ...errors },
      },
    },
    (request) => allCapsules.list(request.query),
  )

  app.delete(
    '/v1/admin/unknown-capsules/:id',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags: ['system'],
        summary: 'Destroy a capsule that a host has and the database does not know, as after a restore from a backup.',
        params: z.object({ id: capsuleIdSchema }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await unknownCapsules.destroy(request.params.id, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.get(
    '/v1/admin/health',
    {
      config: { permission: 'platform.read' },
      schema: {
        tags: ['system'],
        summary: 'How hosts and services do: what is wrong first, with the next step.',
        response: { 200: platformHealthSchema, ...errors },
      },
    },
    () => platformWatch.look(),
  )
}
