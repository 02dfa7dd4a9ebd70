import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { signatureOf } from '@wrenn/base'
import { Filesystem, Process } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TOKEN } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
  await harness.init({ accessToken: TOKEN })
})
afterAll(() => harness[Symbol.asyncDispose]())

const routes = [
  ['GET', '/files?path=/etc/hostname'],
  ['POST', '/files?path=/tmp/never'],
  ['GET', '/metrics'],
  ['GET', '/envs'],
  ['POST', '/process.Process/List'],
  ['POST', '/filesystem.Filesystem/Stat'],
  ['GET', '/no-such-route'],
] as const

const status = async (method: string, path: string, headers: Record<string, string>) =>
  (await fetch(`${harness.url}${path}`, { method, headers, ...(method === 'POST' ? { body: '{}' } : {}) })).status

describe('access to the agent', () => {
  it('is open to nobody without secret or token, except for /health', async () => {
    for (const [method, path] of [...routes, ['POST', '/init'] as const]) {
      for (const headers of [
        {},
        { 'x-wrenn-secret': 'wrong' },
        { 'x-access-token': 'wrong' },
        { 'x-access-token': '' },
      ])
        expect([path, await status(method, path, headers)]).toEqual([path, 401])
    }
    expect(await status('GET', '/health', {})).toBe(204)
  })

  it('is open on every route but /init to the access token', async () => {
    for (const [method, path] of routes) expect(await status(method, path, { 'x-access-token': TOKEN })).not.toBe(401)
    expect(await status('POST', '/init', { 'x-access-token': TOKEN })).toBe(401)
    expect(await status('POST', '/init', { 'x-wrenn-secret': TOKEN })).toBe(401)
  })

  it('serves both services with the token', async () => {
    const headers = { 'x-wrenn-secret': '', 'x-access-token': TOKEN }
    expect((await harness.client(Filesystem, 'json', headers).stat({ path: '/' })).entry?.name).toBeDefined()
    const process = { cmd: 'echo', args: ['hi'] }
    const { stdout } = await collect(harness.client(Process, 'json', headers).start({ process, stdin: false }))
    expect(stdout.toString()).toBe('hi\n')
  })

  it('is closed to everyone before the agent is claimed, whatever the token', async () => {
    await using unclaimed = await AgentHarness.start({ claimed: false })
    for (const [method, path] of routes) {
      const options = { method, headers: { 'x-access-token': '', 'x-wrenn-secret': '' } }
      const response = await fetch(`${unclaimed.url}${path}`, method === 'POST' ? { ...options, body: '{}' } : options)
      expect([path, response.status]).toEqual([path, 401])
    }
  })

  it('gives no access by an empty token when none was set', async () => {
    await using own = await AgentHarness.start()
    for (const token of ['', 'undefined', 'null']) {
      const response = await fetch(`${own.url}/metrics`, { headers: { 'x-access-token': token } })
      expect(response.status).toBe(401)
    }
  })
})

describe('signed URLs', () => {
  const signed = (path: string, operation: 'read' | 'write', user: string, expiration?: string) => {
    const signature = signatureOf({ path, operation, user, expiration }, TOKEN)
    const query = new URLSearchParams({ path, signature })
    if (user !== '') query.set('username', user)
    if (expiration !== undefined) query.set('signature_expiration', expiration)
    return query
  }
  const send = (query: URLSearchParams, method = 'GET') =>
    fetch(`${harness.url}/files?${query}`, {
      method,
      headers: { 'content-type': 'application/octet-stream' },
      ...(method === 'POST' ? { body: 'written' } : {}),
    })
  const later = () => String(Math.floor(Date.now() / 1000) + 100)

  it('match what existing clients compute', () => {
    const request = { path: 'hello.txt', operation: 'read', user: 'user', expiration: undefined } as const
    expect(signatureOf(request, '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0')).toBe(
      'v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E',
    )
  })

  it('read and write one path for one user', async () => {
    const path = join(harness.dir, 'signed +%')
    expect((await send(signed(path, 'write', 'root'), 'POST')).status).toBe(200)
    expect(await (await send(signed(path, 'read', 'root'))).text()).toBe('written')
    expect(await (await send(signed(path, 'read', '', later()))).text()).toBe('written')
  })

  it('do not open another path, operation, user or time', async () => {
    const path = join(harness.dir, 'precious')
    mkdirSync(join(harness.dir, 'x'), { recursive: true })
    writeFileSync(path, 'precious')
    const good = () => signed(path, 'read', 'root', later())
    for (const [name, value] of [
      ['path', `${harness.dir}/x/../precious`],
      ['username', 'nobody'],
      ['signature_expiration', '99999999999'],
      ['signature', 'v1_short'],
      ['signature', ''],
    ] as const) {
      const query = good()
      query.set(name, value)
      const response = await send(query)
      expect([response.status, await response.json()]).toEqual([401, { code: 401, message: 'invalid signature' }])
    }
    expect((await send(good(), 'POST')).status).toBe(401)
    const unsigned = await send(new URLSearchParams({ path }))
    expect(await unsigned.json()).toEqual({ code: 401, message: 'missing signature query parameter' })
  })

  it('are for the user they were made with, whatever a header says', async () => {
    const path = join(harness.dir, 'for-the-default-user')
    expect((await send(signed(path, 'write', ''), 'POST')).status).toBe(200)
    const headers = { authorization: `Basic ${Buffer.from('nobody-knows:').toString('base64')}` }
    const response = await fetch(`${harness.url}/files?${signed(path, 'read', '')}`, { headers })
    expect(response.status).toBe(200)
  })

  it('end at their time, to the letter of what clients compare', async () => {
    const past = String(Math.floor(Date.now() / 1000) - 1)
    for (const expiration of [past, '0', '-5', 'soon']) {
      const response = await send(signed('/etc/hostname', 'read', 'root', expiration))
      expect([response.status, await response.text()]).toEqual([
        401,
        '{"code":401,"message":"signature is already expired"}',
      ])
    }
  })

  it('are not needed beside a valid token or the secret, and open nothing but /files', async () => {
    for (const headers of [{ 'x-access-token': TOKEN }, { 'x-wrenn-secret': SECRET }]) {
      const response = await fetch(`${harness.url}/files?path=/etc/hostname&signature=nonsense`, { headers })
      expect(response.status).toBe(200)
    }
    const query = signed('/metrics', 'read', 'root')
    expect((await fetch(`${harness.url}/metrics?${query}`)).status).toBe(401)
  })

  it('do not work when no token was set', async () => {
    await using own = await AgentHarness.start()
    const query = signed('/etc/hostname', 'read', 'root')
    expect((await fetch(`${own.url}/files?${query}`)).status).toBe(401)
  })
})
