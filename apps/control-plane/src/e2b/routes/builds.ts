import { filesHashSchema, text } from '@wrenn/protocol'
import { z } from 'zod'
import { actorOf, principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { uploadUrl } from '../../http/routes/build-uploads.js'
import type { TemplateBuildInfo, TemplateBuildLogRow } from '../../store/schema.js'
import { beginBuildSchema, startBuildSchema, toNewBuild, toPlan } from '../build-plan.js'
import { hidden } from '../request.js'
import { templateNameOf } from '../template-id.js'

/** Lines of a log in one answer; clients ask on. */
const PAGE = 100
const PLAN_BYTES = 4 * 1024 * 1024

const name = text(200, 1)
const buildParams = z.object({ name, build: text(100, 1) })
const statusQuery = z.object({
  logsOffset: z.coerce
    .number()
    .int()
    .min(0)
    .max(2 ** 31 - 1)
    .default(0),
  limit: z.coerce.number().int().min(1).max(PAGE).default(PAGE),
  level: z.enum(['debug', 'info', 'warn', 'error']).optional(),
})

/** How clients call the states of a build. */
const statuses: Readonly<Record<TemplateBuildInfo['state'], string>> = {
  draft: 'waiting',
  waiting: 'waiting',
  building: 'building',
  ready: 'ready',
  error: 'error',
  cancelled: 'error',
}

/** Templates made by steps: begin one, upload its files, say its steps, and ask how far it is. */
export function buildRoutes(app: App, { templateBuilds, host }: Services): void {
  for (const url of ['/v3/templates', '/v2/templates']) {
    app.post(
      url,
      { config: { permission: 'templates.write' }, schema: { ...hidden, body: beginBuildSchema } },
      async (request, reply) => {
        const build = toNewBuild(request.body)
        const { id: buildID } = await templateBuilds.begin(principalOf(request).teamId, build, actorOf(request))
        const names = { templateID: build.name, names: [build.name], aliases: [build.name], tags: build.tags }
        return await reply.status(202).send({ ...names, buildID, public: false })
      },
    )
  }

  app.get(
    '/templates/:name/files/:hash',
    {
      config: { permission: 'templates.write' },
      schema: { ...hidden, params: z.object({ name, hash: filesHashSchema }) },
    },
    async (request, reply) => {
      const { name: template, hash } = request.params
      const principal = principalOf(request)
      const of = { name: templateNameOf(template) }
      const { isPresent, ticket } = await templateBuilds.uploadLink(principal, of, hash)
      return await reply.status(201).send({ present: isPresent, url: uploadUrl(request, ticket) })
    },
  )

  app.post(
    '/v2/templates/:name/builds/:build',
    {
      bodyLimit: PLAN_BYTES,
      config: { permission: 'templates.write' },
      schema: { ...hidden, params: buildParams, body: startBuildSchema },
    },
    async (request, reply) => {
      const plan = await toPlan(request.body, async (image) => (await host.findTemplate(image)) !== undefined)
      const ref = {
        teamId: principalOf(request).teamId,
        name: templateNameOf(request.params.name),
        id: request.params.build,
      }
      await templateBuilds.submit(ref, plan, actorOf(request))
      return await reply.status(202).send()
    },
  )

  app.get(
    '/templates/:name/builds/:build/status',
    {
      config: { permission: 'templates.read' },
      schema: { ...hidden, params: buildParams, querystring: statusQuery },
    },
    async (request) => {
      const ref = {
        teamId: principalOf(request).teamId,
        name: templateNameOf(request.params.name),
        id: request.params.build,
      }
      const { logsOffset, limit } = request.query
      const { build, lines } = await templateBuilds.status(ref, logsOffset, limit)
      return toStatus(build, lines)
    },
  )
}

/** The level of the query does not filter: the place of a line counts all of them. */
function toStatus(
  { name: templateID, id: buildID, state, reason }: TemplateBuildInfo,
  lines: readonly TemplateBuildLogRow[],
) {
  const { line: _, ...told } = reason ?? { message: '' }
  return {
    templateID,
    buildID,
    status: statuses[state],
    logs: lines.map(({ message }) => message),
    logEntries: lines.map(({ at, level, message, step }) => ({ timestamp: at.toISOString(), level, message, step })),
    ...(reason === null ? {} : { reason: { ...told, logEntries: [] } }),
  }
}
