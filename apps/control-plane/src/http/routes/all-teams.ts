import {
  anyTeamSchema,
  listAllTeamsQuerySchema,
  planNameSchema,
  planSchema,
  putPlanSchema,
  quotaSchema,
  teamIdSchema,
  updateTeamQuotaSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const tags = ['teams']
const params = z.object({ id: teamIdSchema })

/** For admins of the platform. */
export function allTeamRoutes(app: App, services: Services): void {
  quotaRoutes(app, services)
  planRoutes(app, services)
}

function planRoutes(app: App, { plans }: Services): void {
  const planParams = z.object({ name: planNameSchema })
  app.get(
    '/v1/admin/plans',
    {
      config: { permission: 'teams.read' },
      schema: { tags, summary: 'List all plans by name.', response: { 200: z.array(planSchema), ...errors } },
    },
    () => plans.list(),
  )

  app.put(
    '/v1/admin/plans/:name',
    {
      config: { permission: 'teams.write' },
      schema: {
        tags,
        summary: 'Make a plan, or give it other limits; what is left out is what the platform gives every team.',
        description: 'Its teams have the limits from their next start on, except where they have limits of their own.',
        params: planParams,
        body: putPlanSchema,
        response: { 200: planSchema, ...errors },
      },
    },
    (request) => plans.put(request.params.name, request.body, actorOf(request)),
  )

  app.delete(
    '/v1/admin/plans/:name',
    {
      config: { permission: 'teams.write' },
      schema: {
        tags,
        summary: 'Delete a plan that no team has.',
        params: planParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await plans.remove(request.params.name, actorOf(request))
      return await reply.status(204).send()
    },
  )
}

function quotaRoutes(app: App, { teamAdmin, quota }: Services): void {
  app.get(
    '/v1/admin/teams',
    {
      config: { permission: 'teams.read' },
      schema: {
        tags,
        summary: 'List all teams, oldest first, with the limits that are their own.',
        querystring: listAllTeamsQuerySchema,
        response: { 200: z.array(anyTeamSchema), ...errors },
      },
    },
    (request) => teamAdmin.list(request.query),
  )

  app.get(
    '/v1/admin/teams/:id/quota',
    {
      config: { permission: 'teams.read' },
      schema: { tags, summary: 'What a team uses and may use.', params, response: { 200: quotaSchema, ...errors } },
    },
    async (request) => await quota((await teamAdmin.get(request.params.id)).id),
  )

  app.patch(
    '/v1/admin/teams/:id/quota',
    {
      config: { permission: 'teams.write' },
      schema: {
        tags,
        summary: 'Set limits of a team, and its plan; what is left out stays.',
        description: 'What the team uses beyond a new limit goes on; it starts nothing more until it uses less.',
        params,
        body: updateTeamQuotaSchema,
        response: { 200: anyTeamSchema, ...errors },
      },
    },
    (request) => teamAdmin.setQuota(request.params.id, request.body, actorOf(request)),
  )
}
