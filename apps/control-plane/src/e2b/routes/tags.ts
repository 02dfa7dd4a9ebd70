import { requestBody, text } from '@wrenn/protocol'
import { z } from 'zod'
import { MAX_TEMPLATE_TAGS } from '../../domain/templates/index.js'
import { actorOf, principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { hidden, templateParams } from '../request.js'
import { taggedName, tagSchema } from '../template-id.js'

const tags = z.array(tagSchema).min(1).max(MAX_TEMPLATE_TAGS)
const assignSchema = requestBody({ target: text(200, 1), tags })
const removeSchema = requestBody({ name: text(200, 1), tags })

/** Names for builds of templates. */
export function tagRoutes(app: App, { templateTags }: Services): void {
  app.post(
    '/templates/tags',
    { config: { permission: 'templates.write' }, schema: { ...hidden, body: assignSchema } },
    async (request, reply) => {
      const { name, tag } = taggedName(request.body.target)
      const owner = { teamId: principalOf(request).teamId, name }
      const buildID = await templateTags.assign(owner, tag, request.body.tags, actorOf(request))
      return await reply.status(201).send({ buildID, tags: request.body.tags })
    },
  )

  app.delete(
    '/templates/tags',
    { config: { permission: 'templates.write' }, schema: { ...hidden, body: removeSchema } },
    async (request, reply) => {
      const owner = { teamId: principalOf(request).teamId, name: taggedName(request.body.name).name }
      await templateTags.remove(owner, request.body.tags, actorOf(request))
      return await reply.status(204).send()
    },
  )

  app.get(
    '/templates/:name/tags',
    { config: { permission: 'templates.read' }, schema: { ...hidden, params: templateParams } },
    async (request) => {
      const owner = { teamId: principalOf(request).teamId, name: taggedName(request.params.name).name }
      const all = await templateTags.list(owner)
      return all.map(({ tag, buildId: buildID, createdAt }) => ({ tag, buildID, createdAt: createdAt.toISOString() }))
    },
  )
}
