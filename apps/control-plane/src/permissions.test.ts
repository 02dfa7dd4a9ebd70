import { type NewApiKey, type Permission, permissions, permissionsOf, scopes } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

interface Route {
  readonly method: string
  readonly url: string
  readonly permission: Permission | undefined
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly 'x-permission'?: Permission }>>>>
}

let platform: Platform
let routes: readonly Route[]

beforeAll(async () => {
  platform = await startPlatform()
  const { paths } = await json<Document>(await platform.call('GET', '/openapi.json'), 200)
  routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      method: method.toUpperCase(),
      url: path.replace('{id}', `cl-${'0'.repeat(25)}`).replaceAll(/\{\w+\}/g, '1'),
      permission: operation['x-permission'],
    })),
  )
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

async function statusOf({ method, url }: Route, key?: string): Promise<number> {
  const headers = key === undefined ? {} : { 'x-api-key': key }
  const response = await fetch(platform.url + url, { method, headers })
  // Not to its end: some have none.
  await response.body?.cancel()
  return response.status
}

describe('every route', () => {
  it('says what it needs, or is one of those that need nothing', async () => {
    const open = routes.filter(({ permission }) => permission === undefined)
    expect(open.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /health',
      'GET /ready',
      'POST /v1/auth/setup',
      'POST /v1/auth/signup',
      'POST /v1/auth/activate',
      'POST /v1/auth/login',
      'POST /v1/auth/refresh',
      'POST /v1/auth/second-factor',
      'POST /v1/auth/second-factor/passkey',
      'POST /v1/auth/passkey/options',
      'POST /v1/auth/passkey',
      'POST /v1/auth/device',
      'POST /v1/auth/device/token',
      'GET /v1/auth/providers',
      'GET /auth/oauth/1',
      'GET /auth/oauth/1/callback',
      'POST /v1/auth/oauth/token',
      'POST /v1/hosts/register',
      'POST /v1/hosts/auth/refresh',
      'POST /v1/me/password/reset',
      'POST /v1/me/password/reset/confirm',
    ])
    for (const { permission } of routes) if (permission !== undefined) expect(permissions).toContain(permission)
  })

  it('refuses a request without a key and with a wrong one, unless it needs nothing', async () => {
    for (const route of routes) {
      // A refresh has a credential of its own.
      const isOpen = route.permission === undefined && route.url !== '/v1/auth/refresh'
      for (const key of [undefined, 'wrn_nobody', 'wra_nobody']) {
        expect([route, (await statusOf(route, key)) !== 401]).toEqual([route, isOpen])
      }
    }
  })

  it.each(scopes)('lets a key with the scope %s do what the table grants it, and nothing else', async (scope) => {
    const { key } = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: [scope] }), 201)
    const granted = permissionsOf([scope])
    for (const route of routes) {
      if (route.url === '/v1/auth/refresh') continue
      const isGranted = route.permission === undefined || granted.has(route.permission)
      const status = await statusOf(route, key)
      expect([route, status === 403, status === 401]).toEqual([route, !isGranted, false])
    }
  })

  it('that is a WebSocket refuses a key that comes in its first message just so', async () => {
    const { id } = await platform.create()
    const { key } = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['read'] }), 201)
    for (const path of ['pty', 'exec/stream', 'processes/1/stream']) {
      const socket = platform.open(`/v1/capsules/${id}/${path}`, { key: undefined })
      await socket.send({ type: 'auth', api_key: key })
      expect(await socket.frame()).toMatchObject({ type: 'error', code: 'forbidden', fatal: true })
      await expect.poll(() => socket.closed?.code).toBe(1008)
    }
  })
})
