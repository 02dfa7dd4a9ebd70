import {
  capsuleSchema,
  checkpointFileQuerySchema,
  checkpointSchema,
  createCheckpointSchema,
  diffQuerySchema,
  diffResultSchema,
  lifecycleQuerySchema,
  longLifecycleQuerySchema,
  rollbackRequestSchema,
  safeNameSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { hangUpOf } from '../hang-up.js'
import { idempotencyHeaders, requestOptions } from '../idempotency.js'
import { bytes, capsuleParams, errors, noContent, optionalBody } from '../schemas.js'

const reference = safeNameSchema.describe('Id or name of a checkpoint.')
const checkpointParams = capsuleParams.extend({ cid: reference })
const referenceOrNow = safeNameSchema.describe('Id or name of a checkpoint, or `current`.')
const diffParams = capsuleParams.extend({ a: reference, b: referenceOrNow })
const pointParams = capsuleParams.extend({ cid: referenceOrNow })

/** Points in time of a capsule. */
export function checkpointRoutes(app: App, { capsules, checkpoints }: Services): void {
  app.post(
    '/v1/capsules/:id/checkpoints',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['checkpoints'],
        summary: 'Save a point in time of a running or paused capsule.',
        description: '201 when it is made; 202 after `wait_sec`, and the list has it when it is made.',
        params: capsuleParams,
        body: optionalBody(createCheckpointSchema),
        querystring: longLifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 201: checkpointSchema, 202: checkpointSchema, ...errors },
      },
    },
    async (request, reply) => {
      const options = { ...requestOptions(request), name: request.body.name }
      const made = await checkpoints.request(principalOf(request).teamId, request.params.id, options)
      return await reply.status(made.isReady ? 201 : 202).send(made.checkpoint)
    },
  )

  app.get(
    '/v1/capsules/:id/checkpoints',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['checkpoints'],
        summary: 'List the checkpoints of a capsule, oldest first; `parent_id` makes a tree of them.',
        params: capsuleParams,
        response: { 200: z.array(checkpointSchema), ...errors },
      },
    },
    (request) => checkpoints.list(principalOf(request).teamId, request.params.id),
  )

  app.get(
    '/v1/capsules/:id/checkpoints/:cid',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['checkpoints'],
        summary: 'Get a checkpoint by its id or name.',
        params: checkpointParams,
        response: { 200: checkpointSchema, ...errors },
      },
    },
    (request) => checkpoints.get(principalOf(request).teamId, request.params.id, request.params.cid),
  )

  app.delete(
    '/v1/capsules/:id/checkpoints/:cid',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['checkpoints'],
        summary: 'Delete a checkpoint; those made after it stay.',
        params: checkpointParams,
        querystring: lifecycleQuerySchema,
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const { id, cid } = request.params
      await checkpoints.remove(principalOf(request).teamId, id, cid, {
        waitMs: request.query.wait_sec * 1000,
        actor: actorOf(request),
      })
      return await reply.status(204).send()
    },
  )

  app.post(
    '/v1/capsules/:id/checkpoints/:cid/rollback',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['checkpoints'],
        summary: 'Put a capsule back to a checkpoint, under the same id.',
        description:
          'A running capsule runs afterwards, a paused one stays paused, and one that had ended (`error`) runs again. Processes started since are gone. With `{"from": "disk"}` only the files are those of the checkpoint, and no process runs; a paused one is then resumed from its disk, too.',
        params: checkpointParams,
        body: optionalBody(rollbackRequestSchema),
        querystring: lifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errors },
      },
    },
    (request) => {
      const { id, cid } = request.params
      return checkpoints.rollback(principalOf(request).teamId, id, cid, {
        ...requestOptions(request),
        from: request.body.from,
      })
    },
  )

  app.get(
    '/v1/capsules/:id/checkpoints/:a/diff/:b',
    {
      config: { permission: 'capsules.read' },
      schema: {
        tags: ['checkpoints'],
        summary: 'List files that differ between two checkpoints, or a checkpoint and now.',
        description:
          'Read from the disks without booting; `next_cursor` is the `cursor` of the next page. Readers of a capsule come one after the other, with a few on a host at a time; when too many wait, 429 says when to come again.',
        params: diffParams,
        querystring: diffQuerySchema,
        response: { 200: diffResultSchema, ...errors },
      },
    },
    (request, reply) => {
      const { id, a, b } = request.params
      const options = { ...request.query, signal: hangUpOf(reply) }
      return checkpoints.diff(principalOf(request).teamId, id, { from: a, to: b }, options)
    },
  )

  app.get(
    '/v1/capsules/:id/checkpoints/:cid/file',
    {
      config: { permission: 'capsules.use', records: 'capsule.read_file' },
      schema: {
        tags: ['checkpoints'],
        summary: 'Read a file as it was at a checkpoint, or as it is now.',
        description:
          'Read from the disk without booting, and without waking a capsule that sleeps. Files of more than 1 MiB are refused with `too_large`; those of now can be read in parts with `GET /v1/capsules/{id}/files`. Waits, or is refused with 429, where others read points in time of the capsule.',
        produces: ['application/octet-stream'],
        params: pointParams,
        querystring: checkpointFileQuerySchema,
        response: { 200: bytes, ...errors },
      },
    },
    async (request, reply) => {
      const { id, cid } = request.params
      const options = { path: request.query.path, signal: hangUpOf(reply) }
      const { teamId } = principalOf(request)
      await capsules.get(teamId, id) // of another team's there is no entry
      request.access = { path: options.path, checkpoint_id: cid }
      const content = await checkpoints.readFile(teamId, id, cid, options)
      request.access = { ...request.access, bytes: content.byteLength }
      void reply.type('application/octet-stream').header('cache-control', 'no-store')
      return await reply.send(Buffer.from(content.buffer, content.byteOffset, content.byteLength))
    },
  )
}
