import { AppError } from '@wrenn/base'
import {
  backgroundResultSchema,
  execRequestSchema,
  execResultSchema,
  processListSchema,
  signalSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import { execBackground, execForeground, parseSelector, toProcessInfo, toSignal } from '../../domain/commands/index.js'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { hangUpOf } from '../hang-up.js'
import { signsOfWork } from '../processing.js'
import { capsuleParams, errors, noContent, processParams } from '../schemas.js'

const EXEC_BODY_BYTES = 64 * 1024 * 1024

/** Commands in the foreground and background, the list of processes, and signals. */
export function execRoutes(app: App, services: Services): void {
  const { wake, atomic, host, activity, limits, accessLog } = services

  app.post(
    '/v1/capsules/:id/exec',
    {
      bodyLimit: EXEC_BODY_BYTES,
      config: { permission: 'capsules.use' },
      schema: {
        tags: ['processes'],
        summary: 'Run a command.',
        description:
          'Foreground: 200 when it ended. A timeout is not an error: exit_code 124, timed_out true, the output so far, and the process tree is gone. When the client hangs up, the tree is killed. A client that gives up where no answer begins for minutes (such as Node.js fetch after five) sends `Prefer: processing` and gets an interim 102 every 60 s. Background: 202 at once. `timeout_sec` counts while the capsule runs: a command that is under way when it is paused waits, and goes on after the resume with the time that was left. When the guest cannot be reached (its network or agent is down), 504 `guest_unreachable` comes at most 5 s after `timeout_sec`, and the command may still run. With `atomic` the command runs to its end also when the client hangs up, one at a time in a capsule (409 in_use); what other commands do in the capsule meanwhile is undone with it. One whose guest dies (502 guest_died), or whose end cannot be known, has no exit code: it is answered by that error, with `details.rolled_back` true once the capsule runs again as before.',
        params: capsuleParams,
        body: execRequestSchema,
        response: { 200: execResultSchema, 202: backgroundResultSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { body } = request
      const capsule = { teamId: principalOf(request).teamId, id: request.params.id }
      if (body.atomic && body.background) {
        throw new AppError(
          'invalid_request',
          'atomic: a command in the background cannot be atomic; leave one of the two.',
        )
      }
      using _ = signsOfWork(request, reply)
      if (body.atomic) {
        activity.touch(capsule.id)
        const result = await atomic.run(capsule, body, actorOf(request))
        activity.touch(capsule.id)
        return await reply.status(200).send(result)
      }
      const signal = hangUpOf(reply)
      const { generation } = await wake.ready(capsule, { signal })
      activity.touch(capsule.id)
      const record = await accessLog.recorderFor(capsule, actorOf(request))
      const context = { client: host.client, wake, capsule, generation, signal, record }
      if (body.background) {
        return await reply.status(202).send(await host.call(() => execBackground(context, body)))
      }
      const result = await execForeground(context, body, limits.execOutputBytes)
      activity.touch(capsule.id)
      return await reply.status(200).send(result)
    },
  )

  app.get(
    '/v1/capsules/:id/processes',
    {
      config: { permission: 'capsules.use' },
      schema: {
        tags: ['processes'],
        summary: 'List processes started through the API.',
        params: capsuleParams,
        querystring: z.object({ include_ended: z.stringbool().default(false) }),
        response: { 200: processListSchema, ...errors },
      },
    },
    async (request) => {
      const { id } = request.params
      const includeEnded = request.query.include_ended
      const list = () => host.client.listProcesses({ capsuleId: id, includeEnded })
      const answer = await wake.use({ teamId: principalOf(request).teamId, id }, list)
      activity.touch(id)
      return { processes: answer.processes.map(toProcessInfo) }
    },
  )

  app.delete(
    '/v1/capsules/:id/processes/:selector',
    {
      config: { permission: 'capsules.use', records: 'capsule.signal_process' },
      schema: {
        tags: ['processes'],
        summary: 'Signal a process and its children.',
        params: processParams,
        querystring: z.object({ signal: signalSchema.default('SIGKILL') }),
        response: { 204: noContent, ...errors },
      },
    },
    async (request, reply) => {
      const { id, selector } = request.params
      const signal = { process: parseSelector(selector), signal: toSignal(request.query.signal) }
      const kill = () => {
        request.access = { process: selector, signal: request.query.signal }
        return host.client.signalProcess({ capsuleId: id, signal })
      }
      await wake.use({ teamId: principalOf(request).teamId, id }, kill)
      activity.touch(id)
      return await reply.status(204).send()
    },
  )
}
