import { anyCapsulePageSchema, listAnyCapsulesQuerySchema, platformHealthSchema } from '@wrenn/protocol'
import type { App, Services } from '../context.js'
import { errors } from '../schemas.js'

/** For admins of the platform: what is on it, and how it does. */
export function platformRoutes(app: App, { allCapsules, platformWatch }: Services): void {
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
