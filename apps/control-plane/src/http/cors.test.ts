import Fastify from 'fastify'
import { describe, expect, it } from 'vitest'
import type { App } from './context.js'
import { allowOrigins } from './cors.js'

const preflight = {
  method: 'OPTIONS',
  url: '/v1/things',
  headers: { origin: 'https://app.example', 'access-control-request-method': 'POST' },
} as const

function appFor(...origins: string[]): App {
  const app: App = Fastify()
  allowOrigins(app, origins)
  app.get('/v1/things', async (_request, reply) => await reply.header('x-next-token', 'n').send('things'))
  return app
}

describe('allowOrigins', () => {
  it('lets pages of every origin send a key, and read the headers that clients need', async () => {
    const app = appFor('*')
    const asked = await app.inject(preflight)
    expect(asked.statusCode).toBe(204)
    expect(asked.headers['access-control-allow-origin']).toBe('*')
    expect(asked.headers['access-control-allow-headers']).toMatch(
      /X-API-Key.*Authorization.*Idempotency-Key.*Prefer.*Range.*If-Match.*package_version.*sdk_runtime/,
    )
    expect(asked.headers['access-control-allow-methods']).toMatch(/POST.*DELETE/)
    const got = await app.inject({ url: '/v1/things', headers: { origin: 'https://app.example' } })
    expect(got.body).toBe('things')
    expect(got.headers['access-control-expose-headers']).toMatch(/x-next-token.*content-range.*etag/)
  })

  it('names only the origins it was told, and tells caches so', async () => {
    const app = appFor('https://app.example')
    expect((await app.inject(preflight)).headers).toMatchObject({
      'access-control-allow-origin': 'https://app.example',
      vary: 'Origin',
    })
    const other = await app.inject({ ...preflight, headers: { ...preflight.headers, origin: 'https://evil.example' } })
    expect(other.statusCode).toBe(404)
    expect(other.headers['access-control-allow-origin']).toBeUndefined()
  })
})
