import { AppError } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import { DEFAULT_POLICY } from '../../domain/capsules/index.js'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { optionalBody } from '../../http/schemas.js'
import { egressOf, refuseUnsupported, updateNetworkSchema } from '../network.js'
import { hidden, liveOf, optionsOf, sandboxParams } from '../request.js'

/** Nothing of it runs, and nothing is on its way to. */
const sleeps = (state: CapsuleState): boolean => state === 'paused' || state === 'hibernated'

/** What a sandbox may reach. */
export function networkRoutes(app: App, { capsules, egress }: Services): void {
  app.put(
    '/sandboxes/:id/network',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: optionalBody(updateNetworkSchema) },
    },
    async (request, reply) => {
      refuseUnsupported(request.body, ['egressProxy'])
      const { id } = await liveOf(request, capsules)
      const policy = egressOf(request.body, request.body.allow_internet_access) ?? DEFAULT_POLICY
      const { in_force } = await egress.set(principalOf(request).teamId, id, policy, optionsOf(request))
      // A 204 says that it holds. One that sleeps reaches nothing, and does not wake without it.
      if (!in_force && !sleeps((await liveOf(request, capsules)).state)) {
        const message =
          'The host of the sandbox is away, or busy with it. What it may reach is on record, and holds once the host answers.'
        throw new AppError('host_unavailable', message)
      }
      return await reply.status(204).send()
    },
  )
}
