import { egressSchema, egressStatusSchema, lifecycleQuerySchema, setEgressSchema } from '@wrenn/protocol'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { capsuleParams, errors } from '../schemas.js'

/** What a capsule may reach. */
export function egressRoutes(app: App, { egress }: Services): void {
  app.get(
    '/v1/capsules/:id/egress',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['capsules'],
        summary: 'What a capsule may reach, and what it was refused by name.',
        params: capsuleParams,
        response: { 200: egressStatusSchema, ...errors },
      },
    },
    (request) => egress.get(principalOf(request).teamId, request.params.id),
  )

  app.put(
    '/v1/capsules/:id/egress',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Replace what a capsule may reach, also while it runs.',
        description:
          'The whole policy: what is left out has its default. What becomes forbidden ends its open connections, what stays allowed is never cut. 202 when the host is away or the capsule is not there yet: then it is in force as soon as it can be. The policy belongs to the capsule: a rollback does not change it, a fork takes it over.',
        params: capsuleParams,
        body: setEgressSchema,
        querystring: lifecycleQuerySchema,
        response: { 200: egressSchema, 202: egressSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { teamId } = principalOf(request)
      const options = { waitMs: request.query.wait_sec * 1000, actor: actorOf(request) }
      const answer = await egress.set(teamId, request.params.id, request.body, options)
      return await reply.status(answer.in_force ? 200 : 202).send(answer)
    },
  )
}
