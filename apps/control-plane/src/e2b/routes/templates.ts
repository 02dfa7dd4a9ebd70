import { AppError } from '@wrenn/base'
import type { Template } from '@wrenn/protocol'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
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

  app.post('/templates', { config: { permission: 'templates.write' }, schema: { ...hidden } }, async () => {
    throw new AppError('not_supported', 'Templates are built by POST /v3/templates; this first way is not supported.')
  })
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
