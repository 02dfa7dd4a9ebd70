import { templateSchema } from '@wrenn/protocol'
import { z } from 'zod'
import type { App, Services } from '../context.js'
import { errors } from '../schemas.js'

export function templateRoutes(app: App, { host }: Services): void {
  app.get(
    '/v1/snapshots',
    {
      schema: {
        tags: ['templates'],
        summary: 'List what a capsule can be created from.',
        querystring: z.object({ type: z.enum(['base', 'snapshot']).optional() }),
        response: { 200: z.array(templateSchema), ...errors },
      },
    },
    async (request) => {
      const templates = (await host.templates()).map((template) => ({
        name: template.name,
        type: 'base' as const,
        platform: true,
        aliases: template.aliases,
        ...(template.description === '' ? {} : { description: template.description }),
        vcpus: template.defaultVcpus,
        memory_mb: template.defaultMemoryMib,
        size_bytes: Number(template.sizeBytes),
        created_at: new Date(Number(template.createdAtMs)).toISOString(),
      }))
      return request.query.type === 'snapshot' ? [] : templates
    },
  )
}
