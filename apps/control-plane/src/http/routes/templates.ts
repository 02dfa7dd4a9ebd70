import {
  createSnapshotSchema,
  longLifecycleQuerySchema,
  quotaSchema,
  safeNameSchema,
  snapshotSchema,
  TEMPLATE_ARCHIVE_TYPE,
  templateSchema,
  templateTypes,
  text,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import { bodyOfCall } from '../body-of-call.js'
import type { App, Services } from '../context.js'
import { idempotencyHeaders, requestOptions } from '../idempotency.js'
import { bytes, errors, noContent } from '../schemas.js'

const exportText = `Its disk, the image below it, and as whom, where, with which variables and by which start and ready commands it was made; not its memory,
which the import makes anew. The archive ends with its own digest: one that was cut has none. To import it, upload it as an image file of a build.`

/** What capsules are created from, and how many there may be. */
export function templateRoutes(app: App, { snapshots, quota }: Services): void {
  app.post(
    '/v1/snapshots',
    {
      config: { permission: 'templates.write' },
      schema: {
        tags: ['templates'],
        summary: 'Make a template of a running or paused capsule.',
        description:
          'The capsule stays as it was. 201 when it is made; 202 after `wait_sec`, and the list has it then.',
        body: createSnapshotSchema,
        querystring: longLifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 201: snapshotSchema, 202: snapshotSchema, ...errors },
      },
    },
    async (request, reply) => {
      const made = await snapshots.create(principalOf(request).teamId, request.body, requestOptions(request))
      return await reply.status(made.isReady ? 201 : 202).send(made.template)
    },
  )

  app.get(
    '/v1/snapshots',
    {
      config: { permission: 'templates.read' },
      schema: {
        tags: ['templates'],
        summary: 'List what a capsule can be created from: built-in templates and snapshots of the team.',
        querystring: z.object({ type: z.enum(templateTypes).optional() }),
        response: { 200: z.array(templateSchema), ...errors },
      },
    },
    (request) => snapshots.list(principalOf(request).teamId, request.query.type),
  )

  app.delete(
    '/v1/snapshots/:name',
    {
      config: { permission: 'templates.write' },
      schema: {
        tags: ['templates'],
        summary: 'Delete a snapshot; capsules made from it stay.',
        params: z.object({ name: safeNameSchema }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      await snapshots.remove(principalOf(request).teamId, request.params.name, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.get(
    '/v1/snapshots/:name/archive',
    {
      exposeHeadRoute: false,
      config: { permission: 'templates.write' },
      schema: {
        tags: ['templates'],
        summary: 'Download a template of the team as an archive, which another platform can import.',
        description: exportText,
        produces: [TEMPLATE_ARCHIVE_TYPE],
        params: z.object({ name: text(200, 1) }),
        response: { 200: bytes, ...errors },
      },
    },
    async (request, reply) => {
      const { teamId } = principalOf(request)
      const archive = await snapshots.export(teamId, request.params.name, actorOf(request))
      return await reply.type(TEMPLATE_ARCHIVE_TYPE).send(bodyOfCall(reply.raw, archive))
    },
  )

  app.get(
    '/v1/quota',
    {
      config: { permission: 'quota.read' },
      schema: {
        tags: ['capsules'],
        summary: 'What the team uses and what it may use.',
        response: { 200: quotaSchema, ...errors },
      },
    },
    (request) => quota(principalOf(request).teamId),
  )
}
