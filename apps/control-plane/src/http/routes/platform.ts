import {
  anyCapsulePageSchema,
  capsuleIdSchema,
  capsuleMoveSchema,
  lifecycleQuerySchema,
  listAnyCapsulesQuerySchema,
  moveCapsuleSchema,
  platformHealthSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { idempotencyHeaders, requestOptions } from '../idempotency.js'
import { capsuleParams, errors, noContent, optionalBody } from '../schemas.js'

/** For admins of the platform: what is on it, and how it does. */
export function platformRoutes(app: App, { allCapsules, moves, unknownCapsules, platformWatch }: Services): void {
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

  app.post(
    '/v1/admin/capsules/:id/move',
    {
      config: { permission: 'hosts.write' },
      schema: {
        tags: ['system'],
        summary: 'Move a capsule of any team to another host.',
        description:
          'One that runs is paused, stored, and goes on on the other host; a paused one hibernates. Where that fails it is as it was before. After `wait_sec` the answer shows `state: running`. A move that is under way is joined; one that is on no host, or where it should be, stays.',
        params: capsuleParams,
        querystring: lifecycleQuerySchema,
        headers: idempotencyHeaders,
        body: optionalBody(moveCapsuleSchema),
        response: { 200: capsuleMoveSchema, ...errors },
      },
    },
    (request) => moves.move(request.params.id, { ...requestOptions(request), hostId: request.body.host_id }),
  )

  app.get(
    '/v1/admin/capsules/:id/move',
    {
      config: { permission: 'hosts.read' },
      schema: {
        tags: ['system'],
        summary: 'How the newest move of a capsule does, or how it ended.',
        params: capsuleParams,
        response: { 200: capsuleMoveSchema, ...errors },
      },
    },
    (request) => moves.get(request.params.id),
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
