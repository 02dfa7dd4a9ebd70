import { registryLoginSchema, registrySchema, saveRegistryLoginSchema } from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors, noContent } from '../schemas.js'

const params = z.object({ registry: registrySchema })

/** How builds of the team log in at registries of images. */
export function registryRoutes(app: App, { registryLogins }: Services): void {
  app.get(
    '/v1/registries',
    {
      config: { permission: 'templates.read' },
      schema: {
        tags: ['templates'],
        summary: 'List where builds of the team log in.',
        response: { 200: z.array(registryLoginSchema), ...errors },
      },
    },
    (request) => registryLogins.list(principalOf(request).teamId),
  )

  app.put(
    '/v1/registries/:registry',
    {
      config: { permission: 'templates.write' },
      schema: {
        tags: ['templates'],
        summary: 'Have builds of the team log in at a registry.',
        description:
          'It replaces an earlier login there, and goes to that registry alone. The password is encrypted, and in no answer. A login that comes with a build goes before it.',
        params,
        body: saveRegistryLoginSchema,
        response: { 200: registryLoginSchema, ...errors },
      },
    },
    async (request) =>
      await registryLogins.save(principalOf(request).teamId, request.params.registry, request.body, actorOf(request)),
  )

  app.delete(
    '/v1/registries/:registry',
    {
      config: { permission: 'templates.write' },
      schema: {
        tags: ['templates'],
        summary: 'Forget a login at a registry.',
        params,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await registryLogins.remove(principalOf(request).teamId, request.params.registry, actorOf(request))
      return await reply.status(204).send()
    },
  )
}
