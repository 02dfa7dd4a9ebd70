import { AppError } from '@wrenn/base'
import { requestBody } from '@wrenn/protocol'
import { z } from 'zod'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { domainFor } from '../../http/domain-for.js'
import { optionalBody } from '../../http/schemas.js'
import { hasEnd } from '../../store/lifetimes.js'
import { connected } from '../connect.js'
import { DEFAULT_TIMEOUT_SEC, timeoutSchema } from '../create-spec.js'
import { headers, hidden, idOf, liveOf, optionsOf, sandboxParams } from '../request.js'
import { needLive, toSandbox } from '../sandbox.js'

const pauseSchema = optionalBody(requestBody({ memory: z.boolean().default(true) }))
const connectSchema = optionalBody(
  requestBody({ timeout: timeoutSchema.default(DEFAULT_TIMEOUT_SEC), memory: z.boolean().default(true) }),
)
const resumeSchema = optionalBody(
  requestBody({ timeout: timeoutSchema.default(DEFAULT_TIMEOUT_SEC), autoPause: z.boolean().optional() }),
)
const timeoutBodySchema = requestBody({ timeout: timeoutSchema })
const refreshSchema = optionalBody(requestBody({ duration: z.int().min(0).max(3600).default(15) }))

/** Pause sandboxes, find them again, and say how long they live. */
export function lifecycleRoutes(app: App, services: Services): void {
  const { capsules, lifecycle, lifetimes, proxyDomain } = services
  app.post(
    '/sandboxes/:id/pause',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: pauseSchema, headers },
    },
    async (request, reply) => {
      if (!request.body.memory) {
        throw new AppError('not_supported', 'A pause always keeps memory here: memory cannot be false.')
      }
      const { id, team_id: teamId } = await liveOf(request, capsules)
      await lifecycle.pause(teamId, id, optionsOf(request))
      return await reply.status(204).send()
    },
  )

  for (const url of ['/sandboxes/:id/connect', '/v2/sandboxes/:id/connect']) {
    app.post(
      url,
      { config: { permission: 'capsules.write' }, schema: { ...hidden, params: sandboxParams, body: connectSchema } },
      async (request, reply) => {
        const { timeout: lifetimeSec, memory } = request.body
        const { waitMs, actor } = optionsOf(request)
        const options = { lifetimeSec, from: memory ? 'memory' : 'disk', waitMs, actor } as const
        const ref = { id: idOf(request), team_id: principalOf(request).teamId }
        const { row, wasAsleep } = await connected(services, ref, options)
        const sandbox = toSandbox(row, domainFor(proxyDomain, request.headers.host))
        return await reply.status(wasAsleep ? 201 : 200).send(sandbox)
      },
    )
  }

  app.post(
    '/sandboxes/:id/resume',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: resumeSchema, headers },
    },
    async (request, reply) => {
      const { timeout: lifetimeSec, autoPause } = request.body
      const row = await liveOf(request, capsules)
      if (autoPause !== undefined && autoPause !== (row.on_end === 'pause')) {
        throw new AppError('not_supported', 'autoPause is chosen when the sandbox is created.')
      }
      await lifecycle.resume(row.team_id, row.id, { ...optionsOf(request), lifetimeSec })
      const now = await capsules.withAgentAccess(await liveOf(request, capsules), optionsOf(request).actor)
      return await reply.status(201).send(toSandbox(now, domainFor(proxyDomain, request.headers.host)))
    },
  )

  app.post(
    '/sandboxes/:id/timeout',
    {
      config: { permission: 'capsules.write' },
      schema: { ...hidden, params: sandboxParams, body: timeoutBodySchema },
    },
    async (request, reply) => {
      const { teamId } = principalOf(request)
      const row = await lifetimes.set(teamId, idOf(request), request.body.timeout, optionsOf(request).actor)
      const { state } = needLive(row)
      if (!hasEnd(state)) {
        const message = `The sandbox is ${state}; only a running one has a timeout.`
        throw new AppError('invalid_state', message, { details: { state } })
      }
      return await reply.status(204).send()
    },
  )

  app.post(
    '/sandboxes/:id/refreshes',
    { config: { permission: 'capsules.write' }, schema: { ...hidden, params: sandboxParams, body: refreshSchema } },
    async (request, reply) => {
      const { teamId } = principalOf(request)
      needLive(await lifetimes.extend(teamId, idOf(request), request.body.duration, optionsOf(request).actor))
      return await reply.status(204).send()
    },
  )
}
