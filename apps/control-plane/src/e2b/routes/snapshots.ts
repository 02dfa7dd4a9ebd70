import { AppError } from '@wrenn/base'
import { requestBody, text } from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { optionalBody } from '../../http/schemas.js'
import { headers, hidden, liveOf, optionsOf, sandboxParams, tellNext, templateParams } from '../request.js'
import { capsuleIdOf } from '../sandbox.js'
import { snapshotNameSchema, templateNameOf, toSnapshot } from '../template-id.js'

const PAGE = 100

const listSchema = z.object({
  sandboxID: text(100).optional(),
  name: text(200, 1).optional(),
  limit: z.coerce.number().int().min(1).max(PAGE).default(PAGE),
  nextToken: text(256, 1).optional(),
})

/** Templates made of sandboxes. */
export function snapshotRoutes(app: App, { capsules, snapshots, templateBuilds }: Services): void {
  app.post(
    '/sandboxes/:id/snapshots',
    {
      config: { permission: 'templates.write' },
      schema: {
        ...hidden,
        params: sandboxParams,
        body: optionalBody(requestBody({ name: snapshotNameSchema.optional() })),
        headers,
      },
    },
    async (request, reply) => {
      const { id, team_id: teamId } = await liveOf(request, capsules)
      const input = { capsule_id: id, name: request.body.name }
      const { template, isReady } = await snapshots.create(teamId, input, optionsOf(request))
      if (!isReady) {
        throw new AppError('timeout', `The snapshot ${template.name} is still being made; it will be in the list.`)
      }
      return await reply.status(201).send(toSnapshot(template.name))
    },
  )

  app.get(
    '/snapshots',
    { config: { permission: 'templates.read' }, schema: { ...hidden, querystring: listSchema } },
    async (request, reply) => {
      const { sandboxID, name, limit, nextToken: cursor } = request.query
      const { names, nextCursor } = await snapshots.page(principalOf(request).teamId, {
        capsuleId: sandboxID === undefined ? undefined : capsuleIdOf(sandboxID),
        name: name === undefined ? undefined : templateNameOf(name),
        cursor,
        limit,
      })
      tellNext(reply, nextCursor)
      return names.map(toSnapshot)
    },
  )

  app.delete(
    '/templates/:name',
    { config: { permission: 'templates.write' }, schema: { ...hidden, params: templateParams } },
    async (request, reply) => {
      await templateBuilds.remove(principalOf(request).teamId, templateNameOf(request.params.name), actorOf(request))
      return await reply.status(204).send()
    },
  )
}
