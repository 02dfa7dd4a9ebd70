import { healthSchema, readySchema } from '@wrenn/protocol'
import { z } from 'zod'
import type { App, Services } from '../context.js'
import { renderDocs } from '../docs-page.js'
import { apiDocument } from '../openapi.js'

const config = { permission: 'public' } as const

/** Routes without credentials: is it alive, does it work, what does it offer. */
export function systemRoutes(app: App, { readiness, version }: Services): void {
  app.get(
    '/health',
    {
      config,
      schema: { tags: ['system'], summary: 'The process is alive.', response: { 200: healthSchema }, security: [] },
    },
    async () => ({ status: 'ok' as const, version }),
  )

  app.get(
    '/ready',
    {
      config,
      schema: {
        tags: ['system'],
        summary: 'A create would work: database, host and template answer.',
        response: { 200: readySchema, 503: readySchema },
        security: [],
      },
    },
    async (_request, reply) => {
      const ready = await readiness.check()
      return await reply.status(ready.ready ? 200 : 503).send(ready)
    },
  )

  app.get('/openapi.json', { config, schema: { hide: true, response: { 200: z.any() } } }, async () => apiDocument(app))

  let page: string | undefined
  app.get('/docs', { config, schema: { hide: true } }, async (_request, reply) => {
    page ??= renderDocs(apiDocument(app))
    return await reply
      .type('text/html; charset=utf-8')
      .header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'")
      .send(page)
  })
}
