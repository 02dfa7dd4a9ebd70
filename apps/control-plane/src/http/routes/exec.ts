import {
  backgroundResultSchema,
  execRequestSchema,
  execResultSchema,
  processListSchema,
  signalSchema,
} from '@wrenn/protocol'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import { execBackground, execForeground } from '../../domain/exec.js'
import { toProcessInfo, toSignal } from '../../domain/processes.js'
import { parseSelector } from '../../domain/session.js'
import { ownerOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { capsuleParams, errors, noContent, processParams } from '../schemas.js'

const EXEC_BODY_BYTES = 64 * 1024 * 1024

export function execRoutes(app: App, services: Services): void {
  const { capsules, host, activity, limits } = services

  app.post(
    '/v1/capsules/:id/exec',
    {
      bodyLimit: EXEC_BODY_BYTES,
      schema: {
        tags: ['processes'],
        summary: 'Run a command.',
        description:
          'Foreground: 200 when it ended. A timeout is not an error: exit_code 124, timed_out true, the output so far, and the process tree is gone. When the client hangs up, the tree is killed. Background: 202 at once.',
        params: capsuleParams,
        body: execRequestSchema,
        response: { 200: execResultSchema, 202: backgroundResultSchema, ...errors },
      },
    },
    async (request, reply) => {
      const row = await capsules.running(ownerOf(request).teamId, request.params.id)
      activity.touch(row.id)
      const context = { client: host.client, capsuleId: row.id, signal: hangUpOf(reply) }
      if (request.body.background) {
        return await reply.status(202).send(await host.call(() => execBackground(context, request.body)))
      }
      const result = await execForeground(context, request.body, limits.execOutputBytes)
      activity.touch(row.id)
      return await reply.status(200).send(result)
    },
  )

  app.get(
    '/v1/capsules/:id/processes',
    {
      schema: {
        tags: ['processes'],
        summary: 'List processes started through the API.',
        params: capsuleParams,
        querystring: z.object({ include_ended: z.stringbool().default(false) }),
        response: { 200: processListSchema, ...errors },
      },
    },
    async (request) => {
      const row = await capsules.running(ownerOf(request).teamId, request.params.id)
      const includeEnded = request.query.include_ended
      const answer = await host.call((client) => client.listProcesses({ capsuleId: row.id, includeEnded }))
      return { processes: answer.processes.map(toProcessInfo) }
    },
  )

  app.delete(
    '/v1/capsules/:id/processes/:selector',
    {
      schema: {
        tags: ['processes'],
        summary: 'Signal a process and its children.',
        params: processParams,
        querystring: z.object({ signal: signalSchema.default('SIGKILL') }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const row = await capsules.running(ownerOf(request).teamId, request.params.id)
      const signal = { process: parseSelector(request.params.selector), signal: toSignal(request.query.signal) }
      await host.call((client) => client.signalProcess({ capsuleId: row.id, signal }))
      activity.touch(row.id)
      return await reply.status(204).send()
    },
  )
}

/** Ends when the client goes away before it got its answer. */
function hangUpOf(reply: FastifyReply): AbortSignal {
  const hangUp = new AbortController()
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) hangUp.abort()
  })
  return hangUp.signal
}
