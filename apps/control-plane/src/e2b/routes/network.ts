import { AppError } from '@wrenn/base'
import type { App, Services } from '../../http/context.js'
import { optionalBody } from '../../http/schemas.js'
import { egressOf, isSamePolicy, refuseUnsupported, updateNetworkSchema } from '../network.js'
import { hidden, liveOf, sandboxParams } from '../request.js'

/** What a sandbox may reach. */
export function networkRoutes(app: App, { capsules }: Services): void {
  app.put(
    '/sandboxes/:id/network',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: optionalBody(updateNetworkSchema) },
    },
    async (request, reply) => {
      refuseUnsupported(request.body, ['rules', 'egressProxy'])
      const { egress } = await liveOf(request, capsules)
      const wanted = egressOf(request.body, request.body.allow_internet_access)
      if (!isSamePolicy(egress, wanted)) {
        throw new AppError(
          'not_supported',
          'What a sandbox may reach is chosen when it is created, and cannot be changed while it is there.',
        )
      }
      return await reply.status(204).send()
    },
  )
}
