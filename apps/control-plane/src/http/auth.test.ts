import Fastify from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { describe, expect, it } from 'vitest'
import { requirePermissions } from './auth.js'
import type { App } from './context.js'

describe('a route', () => {
  it('that names no permission cannot be registered', async () => {
    const app: App = Fastify().withTypeProvider<ZodTypeProvider>()
    requirePermissions(app)
    app.get('/open', { config: { permission: 'public' } }, async () => 'ok')
    expect(() => app.get('/forgotten', async () => 'ok')).toThrow('GET /forgotten names no permission')
    await app.close()
  })
})
