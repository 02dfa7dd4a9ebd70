import { AppError } from '@wrenn/base'
import { requestBody, type Template } from '@wrenn/protocol'
import { z } from 'zod'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { optionalBody } from '../../http/schemas.js'
import { hidden, templateParams } from '../request.js'
import { templateNameOf } from '../template-id.js'
import { ENVD_VERSION } from '../wire.js'

/** What sandboxes are created from. */
export function templateRoutes(app: App, { snapshots }: Services): void {
  app.get('/templates', { config: { permission: 'templates.read' }, schema: { ...hidden } }, async (request) =>
    (await snapshots.list(principalOf(request).teamId)).map(toTemplate),
  )

  app.get(
    '/templates/aliases/:name',
    {
      config: { permission: 'templates.read' },
      schema: { ...hidden, params: templateParams },
    },
    async (request) => {
      const { name, platform } = await snapshots.get(principalOf(request).teamId, templateNameOf(request.params.name))
      return { templateID: name, public: platform }
    },
  )

  app.patch(
    '/v2/templates/:name',
    {
      config: { permission: 'templates.write' },
      schema: {
        ...hidden,
        params: templateParams,
        body: optionalBody(requestBody({ public: z.boolean().optional() })),
      },
    },
    async (request) => {
      const template = await snapshots.get(principalOf(request).teamId, templateNameOf(request.params.name))
      refuseChange(template, request.body.public)
      return { names: [template.name, ...template.aliases] }
    },
  )

  app.post('/templates', { config: { permission: 'templates.write' }, schema: { ...hidden } }, async () => {
    throw new AppError('not_supported', 'Templates are built by POST /v3/templates; this first way is not supported.')
  })
}

/** Who may use a template does not change: its team alone, and everybody what the platform comes with. */
function refuseChange({ name, platform }: Template, isPublic: boolean | undefined): void {
  if (isPublic === undefined || isPublic === platform) return
  const message = platform
    ? `${name} is a template of the platform, which everybody may use: public cannot be false.`
    : `${name} is your team's alone, as all that is built is here: public cannot be true.`
  throw new AppError('not_supported', message)
}

function toTemplate(template: Template) {
  const names = [template.name, ...template.aliases]
  return {
    templateID: template.name,
    buildID: template.snapshot_id ?? template.name,
    buildStatus: 'ready',
    buildCount: 1,
    cpuCount: template.vcpus,
    memoryMB: template.memory_mb,
    diskSizeMB: template.disk_size_mb ?? 0,
    public: template.platform,
    aliases: names,
    names,
    createdAt: template.created_at,
    updatedAt: template.created_at,
    createdBy: null,
    lastSpawnedAt: null,
    spawnCount: 0,
    envdVersion: ENVD_VERSION,
  }
}
