import { afterEach, beforeEach, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const at = '2026-01-02T03:04:05.000Z'
const login = { registry: 'registry.example:5000', username: 'robot', created_at: at, updated_at: at }
const info = { registry: login.registry, username: 'robot', createdAt: new Date(at), updatedAt: new Date(at) }
let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => await server[Symbol.asyncDispose]())

it('logins at registries are kept, listed and forgotten', async () => {
  server.handler = ({ method }, response) => {
    if (method === 'DELETE') return response.writeHead(204).end()
    return sendJson(response, method === 'GET' ? [login] : login, 200)
  }
  expect(await wrenn.registries.login(login.registry, 'robot', 'hidden')).toEqual(info)
  expect(await wrenn.registries.list()).toEqual([info])
  await wrenn.registries.logout(login.registry)
  expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([
    'PUT /v1/registries/registry.example%3A5000',
    'GET /v1/registries',
    'DELETE /v1/registries/registry.example%3A5000',
  ])
  expect(JSON.parse(server.seen[0]?.body ?? '')).toEqual({ username: 'robot', password: 'hidden' })
})
