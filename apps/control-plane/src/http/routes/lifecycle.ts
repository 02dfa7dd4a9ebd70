import {
  capsuleSchema,
  forkRequestSchema,
  forkResultSchema,
  lifecycleQuerySchema,
  longLifecycleQuerySchema,
  resumeRequestSchema,
  updateCapsuleSchema,
} from '@wrenn/protocol'
import { toCapsule } from '../../domain/capsules/index.js'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { idempotencyHeaders, requestOptions } from '../idempotency.js'
import { capsuleParams, ENVIRONMENT_BODY_BYTES, errors, optionalBody } from '../schemas.js'

/** Pause, resume, fork and change capsules. */
export function lifecycleRoutes(app: App, { lifecycle }: Services): void {
  app.post(
    '/v1/capsules/:id/pause',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Save memory, processes and disk of a running capsule and stop it.',
        description: 'A pause that is under way is joined. After `wait_sec` the answer shows `state: pausing`.',
        params: capsuleParams,
        querystring: lifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errors },
      },
    },
    (request) => lifecycle.pause(principalOf(request).teamId, request.params.id, requestOptions(request)),
  )

  app.post(
    '/v1/capsules/:id/hibernate',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Store a capsule away from its host, which keeps nothing of it.',
        description:
          'A running one is paused first. After `wait_sec` the answer shows `state: paused`: until its state is in the object store it can be resumed, which ends this with `conflict`. A hibernated capsule is resumed on any host. One with checkpoints is refused: they stay on their host.',
        params: capsuleParams,
        querystring: lifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errors },
      },
    },
    (request) => lifecycle.hibernate(principalOf(request).teamId, request.params.id, requestOptions(request)),
  )

  app.post(
    '/v1/capsules/:id/resume',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Let a paused or hibernated capsule go on, exactly where it was.',
        description:
          'A resume that is under way is joined. After `wait_sec` the answer shows `state: resuming`. A capsule that ended with a saved state behind it goes on from that. With `{"from": "disk"}` it starts from its files, without its memory and processes: also one whose saved state cannot be loaded (`state_not_loadable`, `snapshot_damaged`), or that ended without one.',
        params: capsuleParams,
        body: optionalBody(resumeRequestSchema),
        querystring: lifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 200: capsuleSchema, ...errors },
      },
    },
    (request) => {
      const options = { ...requestOptions(request), from: request.body.from }
      return lifecycle.resume(principalOf(request).teamId, request.params.id, options)
    },
  )

  app.post(
    '/v1/capsules/:id/fork',
    {
      bodyLimit: ENVIRONMENT_BODY_BYTES,
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Make running copies of a capsule, or of how it was at a checkpoint, memory included.',
        description: 'All copies or none. 201 when they run; 202 with them `starting` after `wait_sec`.',
        params: capsuleParams,
        body: optionalBody(forkRequestSchema),
        querystring: longLifecycleQuerySchema,
        headers: idempotencyHeaders,
        response: { 201: forkResultSchema, 202: forkResultSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { teamId } = principalOf(request)
      const forked = await lifecycle.fork(teamId, request.params.id, request.body, requestOptions(request))
      return await reply.status(forked.isReady ? 201 : 202).send(forked.result)
    },
  )

  app.patch(
    '/v1/capsules/:id',
    {
      config: { permission: 'capsules.write' },
      schema: {
        tags: ['capsules'],
        summary: 'Change name, labels, timeout, auto-resume or who may reach its ports.',
        description: 'What is left out stays. A new timeout counts from now.',
        params: capsuleParams,
        body: optionalBody(updateCapsuleSchema),
        response: { 200: capsuleSchema, ...errors },
      },
    },
    async (request) =>
      toCapsule(await lifecycle.update(principalOf(request).teamId, request.params.id, request.body, actorOf(request))),
  )
}
