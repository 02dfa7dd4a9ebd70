import type { Permission } from '@wrenn/protocol'
import { permissions } from '@wrenn/protocol'
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
  await response.arrayBuffer()
  return response.status
}

describe('every route', () => {
  it('says what it needs, or is one of those that need nothing', async () => {
    const open = routes.filter(({ permission }) => permission === undefined)
    expect(open.map(({ method, url }) => `${method} ${url}`)).toEqual(['GET /health', 'GET /ready'])
    for (const { permission } of routes) if (permission !== undefined) expect(permissions).toContain(permission)
  })

  it('refuses a request without a key and with a wrong one, unless it needs nothing', async () => {
    for (const route of routes) {
      const isOpen = route.permission === undefined
      for (const key of [undefined, 'wrn_nobody']) {
        expect([route, (await statusOf(route, key)) !== 401]).toEqual([route, isOpen])
      }
    }
  })

  it('lets a key with all scopes through', async () => {
    for (const route of routes) expect([401, 403], route.url).not.toContain(await statusOf(route, platform.key))
  })
})
