import { AppError, silentLogger } from '@wrenn/base'
import { startTestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { readConfig } from './config.js'
import { type RunningProxy, startPortProxy } from './port-proxy.js'
import { openDatabase } from './store/database.js'
import { freshDatabase, json, type Platform, Socket, startPlatform } from './testing/harness.js'
import { bodyOf, exchange, type Service, serve } from './testing/proxied.js'

let platform: Platform
let proxies: readonly RunningProxy[]
let service: Service
let id: string

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_ENCRYPTION_KEY: 'ab'.repeat(32) } })
  proxies = [await startProxy(), await startProxy()]
}, 60_000)
afterAll(async () => {
  for (const proxy of proxies) await proxy[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})
beforeEach(async () => {
  service = await serve(async (request, response) => response.end(`hello ${await bodyOf(request)}`))
  id = (await platform.create({})).id
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
  await platform.call('DELETE', `/v1/capsules/${id}`)
})

function startProxy(env: Readonly<Record<string, string>> = {}): Promise<RunningProxy> {
  const { databaseUrl, host } = platform
  const config = readConfig({
    DATABASE_URL: databaseUrl,
    WRENN_HOST_AGENT_ADDRESS: host.address,
    WRENN_PORT: '0',
    ...env,
  })
  return startPortProxy(config, silentLogger, { drainMs: 500 })
}

const ask = (host: string, path = '/', more = ''): string =>
  `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${more}\r\n`
const port = (): string => `${service.port}-${id}.localhost`
const first = (): RunningProxy => {
  const [proxy] = proxies
  if (proxy === undefined) throw new Error('no proxy')
  return proxy
}

describe('a proxy alone', () => {
  it('serves ports beside others, and nothing of the API', async () => {
    for (const proxy of proxies) {
      expect(await exchange(proxy, ask(port()))).toMatch(/^HTTP\/1\.1 200 [\s\S]*hello/)
      const answer = await fetch(`${proxy.url}/v1/capsules`, { headers: { 'x-api-key': platform.key } })
      expect(await json(answer, 404)).toMatchObject({
        error: { code: 'not_found', message: expect.stringContaining('names none') },
      })
    }
    const raw = new WebSocket(`${first().url.replace('http', 'ws')}/v1/capsules/${id}/exec/stream`)
    const refused = await new Promise<Error>((resolve) => raw.once('error', resolve))
    expect(refused.message).toContain('404')
  })

  it('says that it lives, and whether database and host answer', async () => {
    expect(await json(await fetch(`${first().url}/health`), 200)).toMatchObject({ status: 'ok' })
    expect(await json(await fetch(`${first().url}/ready`), 200)).toMatchObject({ ready: true })
    await platform.host.stop()
    expect(await json(await fetch(`${first().url}/ready`), 503)).toMatchObject({
      ready: false,
      checks: { database: { ok: true }, host: { ok: false } },
    })
    await platform.host.start()
  })

  it('wakes a capsule once for a storm over several of them', { timeout: 60_000 }, async () => {
    await platform.call('PATCH', `/v1/capsules/${id}`, { auto_resume: true })
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    const asked = Array.from({ length: 40 }, (_, n) => exchange(proxies[n % 2] ?? first(), ask(port())))
    for (const answer of await Promise.all(asked)) expect(answer).toMatch(/^HTTP\/1\.1 200 /)
    const db = openDatabase({ url: platform.databaseUrl })
    const resumes = db.selectFrom('operations').select('kind').where('capsule_id', '=', id).where('kind', '=', 'resume')
    expect(await resumes.execute()).toHaveLength(1)
    await db.destroy()
  })

  it('leaves what rules set to control planes, which have the key, and wakes the capsule then', {
    timeout: 60_000,
  }, async () => {
    await platform.call('PATCH', `/v1/capsules/${id}`, { auto_resume: true })
    await json(await platform.call('POST', `/v1/capsules/${id}/pause?wait_sec=30`), 200)
    for (let attempt = 0; attempt < 20; attempt++) {
      platform.host.failNext('egress', new AppError('host_unavailable', 'The host agent is starting.'))
    }
    const rules = [{ host: 'api.example', headers: { authorization: 'of a rule' } }]
    await json(await platform.call('PUT', `/v1/capsules/${id}/egress`, { rules }), 202)
    expect(await exchange(first(), ask(port()))).toMatch(/^HTTP\/1\.1 200 /)
    expect(platform.host.capsules.get(id)?.request?.egress?.rules).toMatchObject(rules)
  })

  it('refuses what became private, wherever that was said', async () => {
    expect(await exchange(first(), ask(port()))).toMatch(/^HTTP\/1\.1 200 /)
    await platform.call('PATCH', `/v1/capsules/${id}`, { port_access: 'private' })
    await expect.poll(() => exchange(first(), ask(port()))).toMatch(/^HTTP\/1\.1 403 /)
    const own = ask(port(), '/', `X-API-Key: ${platform.key}\r\n`)
    expect(await exchange(first(), own)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('ends what is open when it stops', async () => {
    const sockets = new WebSocketServer({ server: service.server })
    sockets.on('connection', (socket) => socket.send(JSON.stringify({ type: 'open' })))
    const proxy = await startProxy()
    const { hostname, port: at } = new URL(proxy.url)
    const open = new Socket(new WebSocket(`ws://${hostname}:${at}/`, { headers: { host: port() } }))
    await open.until('open')
    await proxy[Symbol.asyncDispose]()
    expect(await open.message()).toBeUndefined()
    await expect(fetch(`${proxy.url}/health`)).rejects.toThrow()
    sockets.close()
  })

  it('does not start on a database that no control plane has prepared', async () => {
    await using postgres = await startTestPostgres()
    const databaseUrl = await freshDatabase(postgres.url)
    await expect(startProxy({ DATABASE_URL: databaseUrl })).rejects.toMatchObject({
      code: 'invalid_config',
      message: expect.stringContaining('lacks migrations'),
    })
  })

  it('says which address it cannot listen on', async () => {
    const taken = new URL(first().url).port
    await expect(startProxy({ WRENN_PORT: taken })).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('WRENN_PORT'),
    })
  })
})
