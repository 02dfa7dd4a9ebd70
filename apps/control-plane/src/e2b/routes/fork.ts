import { forkRequestSchema, requestBody } from '@wrenn/protocol'
import { z } from 'zod'
import type { App, Services } from '../../http/context.js'
import { domainFor } from '../../http/domain-for.js'
import { optionalBody } from '../../http/schemas.js'
import { DEFAULT_TIMEOUT_SEC, timeoutSchema } from '../create-spec.js'
import { headers, hidden, liveOf, optionsOf, sandboxParams } from '../request.js'
import { toSandbox } from '../sandbox.js'

const forkSchema = optionalBody(
  requestBody({ timeout: timeoutSchema.default(DEFAULT_TIMEOUT_SEC), count: z.int().min(1).max(100).default(1) }),
)

/** Running copies of a sandbox, all of them or none. */
export function forkRoutes(app: App, { capsules, lifecycle, proxyDomain }: Services): void {
  app.post(
    '/sandboxes/:id/fork',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: forkSchema, headers },
    },
    async (request, reply) => {
      const { timeout: lifetimeSec, count } = request.body
      const { id, team_id: teamId, on_end: onEnd } = await liveOf(request, capsules)
      const life = { lifetimeSec, onEnd: onEnd ?? 'kill' } as const
      const spec = { ...forkRequestSchema.parse({ count }), life, agentAccess: true }
      const { result } = await lifecycle.fork(teamId, id, spec, optionsOf(request))
      const rows = await Promise.all(result.capsules.map((copy) => capsules.get(teamId, copy.id)))
      const domain = domainFor(proxyDomain, request.headers.host)
      return await reply.status(201).send(rows.map((row) => ({ sandbox: toSandbox(row, domain) })))
    },
  )
}
