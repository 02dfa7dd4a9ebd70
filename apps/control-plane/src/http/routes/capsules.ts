import {
  capsuleSchema,
  createCapsuleQuerySchema,
  createCapsuleSchema,
  listCapsulesQuerySchema,
  type Ports,
  portsSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { toCapsule } from '../../domain/capsules/index.js'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { domainFor } from '../domain-for.js'
import { idempotencyHeaders, requestOptions } from '../idempotency.js'
import { capsuleParams, ENVIRONMENT_BODY_BYTES, errors, noContent, optionalBody } from '../schemas.js'

/** Existing clients give up after 5 seconds. */
const ANSWER_WITHIN_MS = 4_500

/** Create, list, get, destroy and ping. */
export function capsuleRoutes(app: App, { capsules, activity, proxyDomain }: Services): void {
  app.post(
    '/v1/capsules',
    {
      bodyLimit: ENVIRONMENT_BODY_BYTES,
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Create a capsule.',
        body: optionalBody(createCapsuleSchema),
        querystring: createCapsuleQuerySchema,
        headers: idempotencyHeaders,
        response: { 201: capsuleSchema, ...errors },
      },
    },
    async (request, reply) => {
      const row = await capsules.create(principalOf(request).teamId, request.body, requestOptions(request))
      return await reply.status(201).send(toCapsule(row, { timings: true }))
    },
  )

  app.get(
    '/v1/capsules',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['capsules'],
        summary: 'List capsules, newest first.',
        description: 'The header `x-next-token` is the cursor of the next page; absent on the last one.',
        querystring: listCapsulesQuerySchema,
        response: { 200: z.array(capsuleSchema), ...errors },
      },
    },
    async (request, reply) => {
      const page = await capsules.list(principalOf(request).teamId, request.query)
      if (page.nextCursor !== undefined) void reply.header('x-next-token', page.nextCursor)
      return page.rows.map((row) => toCapsule(row))
    },
  )

  app.get(
    '/v1/capsules/:id',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['capsules'],
        summary: 'Get a capsule, also one that has ended.',
        params: capsuleParams,
        response: { 200: capsuleSchema, ...errors },
      },
    },
    async (request) => toCapsule(await capsules.get(principalOf(request).teamId, request.params.id)),
  )

  app.get(
    '/v1/capsules/:id/ports',
    {
      config: { permission: 'capsules.use' },
      schema: {
        tags: ['capsules'],
        summary: 'How its ports are reached by URL.',
        params: capsuleParams,
        response: { 200: portsSchema, ...errors },
      },
    },
    async (request) => {
      const row = await capsules.get(principalOf(request).teamId, request.params.id)
      return toPorts(row.port_token, domainFor(proxyDomain, request.headers.host))
    },
  )

  app.delete(
    '/v1/capsules/:id',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Destroy a capsule and its files; repeats succeed.',
        params: capsuleParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const options = { waitMs: ANSWER_WITHIN_MS, actor: actorOf(request) }
      await capsules.destroy(principalOf(request).teamId, request.params.id, options)
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/capsules/:id/ping',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Count as activity.',
        params: capsuleParams,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const row = await capsules.running(principalOf(request).teamId, request.params.id)
      activity.touch(row.id)
      return await reply.status(204).send()
    },
  )
}

function toPorts(token: string | null, domain: string): Ports {
  return token === null ? { access: 'public', domain } : { access: 'private', domain, token }
}
