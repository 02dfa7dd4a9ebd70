import {
  beginTemplateBuildSchema,
  buildFilesSchema,
  buildIdSchema,
  filesHashSchema,
  listTemplateBuildsQuerySchema,
  startTemplateBuildSchema,
  type TemplateBuild,
  templateBuildLogQuerySchema,
  templateBuildLogSchema,
  templateBuildSchema,
} from '@wrenn/protocol'
import { z } from 'zod'
import type { Actor, TemplateBuildInfo } from '../../store/schema.js'
import { actorOf, principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { hangUpOf } from '../hang-up.js'
import { errors } from '../schemas.js'
import { toSubmittedPlan } from '../submitted-plan.js'
import { uploadUrl } from './build-uploads.js'

const PLAN_BYTES = 8 * 1024 * 1024
const params = z.object({ id: buildIdSchema })
const read = { permission: 'templates.read' } as const
const write = { permission: 'templates.write' } as const

/** Templates made by steps: begin a build, upload its files, start it, and follow it. */
export function templateBuildRoutes(app: App, services: Services): void {
  begin(app, services)
  follow(app, services)
}

function begin(app: App, { templateBuilds }: Services): void {
  app.post(
    '/v1/templates/builds',
    {
      config: write,
      schema: {
        tags: ['templates'],
        summary: 'Begin a build of a template.',
        description:
          'A template of that name stays as it is until the build is ready. Upload its files, then start it; a build that is not started in time is given up.',
        body: beginTemplateBuildSchema,
        response: { 201: templateBuildSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { name, tags, vcpus, memory_mb: memoryMib } = request.body
      const wanted = { name, tags, vcpus, memoryMib }
      const build = await templateBuilds.begin(principalOf(request).teamId, wanted, actorOf(request))
      return await reply.status(201).send(toBuild(build))
    },
  )

  app.get(
    '/v1/templates/builds/:id/files/:hash',
    {
      config: write,
      schema: {
        tags: ['templates'],
        summary: 'Where the files of a step go.',
        description: 'A link that is good for as long as the build may take, for a tar that is called by this hash.',
        params: params.extend({ hash: filesHashSchema }),
        response: { 200: buildFilesSchema, ...errors },
      },
    },
    async (request, reply) => {
      const principal = principalOf(request)
      const { id, hash } = request.params
      const { isPresent, ticket } = await templateBuilds.uploadLink(principal, { id }, hash)
      void reply.header('cache-control', 'no-store')
      return { present: isPresent, upload_url: uploadUrl(request, ticket) }
    },
  )

  app.post(
    '/v1/templates/builds/:id/start',
    {
      bodyLimit: PLAN_BYTES,
      config: write,
      schema: {
        tags: ['templates'],
        summary: 'Say of what a build is made, and let it go.',
        description: 'Steps mean what the instructions of a Dockerfile do (docs/dockerfiles.md).',
        params,
        body: startTemplateBuildSchema,
        response: { 202: templateBuildSchema, ...errors },
      },
    },
    async (request, reply) => {
      const ref = { teamId: principalOf(request).teamId, id: request.params.id }
      const build = await templateBuilds.submit(ref, toSubmittedPlan(request.body), actorOf(request))
      return await reply.status(202).send(toBuild(build))
    },
  )
}

function follow(app: App, { templateBuilds }: Services): void {
  app.get(
    '/v1/templates/builds',
    {
      config: read,
      schema: {
        tags: ['templates'],
        summary: 'List the newest builds of the team, newest first.',
        description: 'The next page is had with `before`, the id of the last one of the page before it.',
        querystring: listTemplateBuildsQuerySchema,
        response: { 200: z.array(templateBuildSchema), ...errors },
      },
    },
    async (request) => (await templateBuilds.list(principalOf(request).teamId, request.query)).map(toBuild),
  )

  app.get(
    '/v1/templates/builds/:id',
    {
      config: read,
      schema: {
        tags: ['templates'],
        summary: 'One build, and how far it is.',
        params,
        response: { 200: templateBuildSchema, ...errors },
      },
    },
    async (request) => toBuild(await templateBuilds.get(principalOf(request).teamId, request.params.id)),
  )

  app.get(
    '/v1/templates/builds/:id/log',
    {
      config: read,
      schema: {
        tags: ['templates'],
        summary: 'What a build has said, from a line on.',
        description: 'To follow it ask for `next` with `wait_sec`, until the build has ended and a page has no lines.',
        params,
        querystring: templateBuildLogQuerySchema,
        response: { 200: templateBuildLogSchema, ...errors },
      },
    },
    async (request, reply) => {
      const { from, limit, wait_sec: waitSec } = request.query
      const ref = { teamId: principalOf(request).teamId, id: request.params.id }
      const page = { from, limit, waitMs: waitSec * 1000 }
      const { build, lines } = await templateBuilds.follow(ref, page, hangUpOf(reply))
      const told = lines.map(({ at, level, step, message }) => ({ at: at.toISOString(), level, step, message }))
      return { build: toBuild(build), lines: told, next: from + lines.length }
    },
  )

  app.post(
    '/v1/templates/builds/:id/cancel',
    {
      config: write,
      schema: {
        tags: ['templates'],
        summary: 'End a build; a template of its name stays as it is.',
        description: 'One that has ended stays as it is, too.',
        params,
        response: { 200: templateBuildSchema, ...errors },
      },
    },
    async (request) =>
      toBuild(await templateBuilds.cancel(principalOf(request).teamId, request.params.id, actorOf(request))),
  )
}

function toBuild(row: TemplateBuildInfo): TemplateBuild {
  const { id, name, tags, state, reason, log_count: lines, created_at: createdAt, ended_at: endedAt } = row
  const { actor, person, steps, cached_steps: cachedSteps } = row
  return {
    ...{ id, name, tags, state, log_lines: lines, created_at: createdAt.toISOString() },
    ...(reason === null ? {} : { reason }),
    ...(actor === null ? {} : { by: beginnerOf(actor, person ?? '') }),
    ...(steps === null ? {} : { steps }),
    ...(cachedSteps === null ? {} : { cached_steps: cachedSteps }),
    ...(endedAt === null ? {} : { ended_at: endedAt.toISOString() }),
  }
}

function beginnerOf({ kind = 'key', id, name }: Actor, person: string): TemplateBuild['by'] {
  return { type: kind, id, name: kind === 'user' ? person : name }
}
