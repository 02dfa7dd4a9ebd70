import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { domainFor } from '../../http/domain-for.js'
import { ENVIRONMENT_BODY_BYTES } from '../../http/schemas.js'
import { createSandboxSchema, DEFAULT_TIMEOUT_SEC, OLD_DEFAULT_TIMEOUT_SEC, toCapsuleSpec } from '../create-spec.js'
import { headers, hidden, optionsOf } from '../request.js'
import { toSandbox } from '../sandbox.js'

/** The older and the newer path differ in what they take for granted. */
const paths = [
  { url: '/sandboxes', defaultTimeoutSec: OLD_DEFAULT_TIMEOUT_SEC },
  { url: '/v2/sandboxes', defaultTimeoutSec: DEFAULT_TIMEOUT_SEC },
] as const

/** Create a sandbox. */
export function createRoutes(app: App, { capsules, proxyDomain }: Services): void {
  for (const { url, defaultTimeoutSec } of paths) {
    app.post(
      url,
      {
        bodyLimit: ENVIRONMENT_BODY_BYTES,
        config: { permission: 'capsules.write' },
        schema: { ...hidden, body: createSandboxSchema, headers },
      },
      async (request, reply) => {
        const spec = toCapsuleSpec(request.body, defaultTimeoutSec)
        const row = await capsules.create(principalOf(request).teamId, spec, optionsOf(request))
        return await reply.status(201).send(toSandbox(row, domainFor(proxyDomain, request.headers.host)))
      },
    )
  }
}
