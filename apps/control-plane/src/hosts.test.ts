import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createCertificateRequest } from '@wrenn/certificates'
import type { AuditPage, ErrorBody, Host, HostCredentials, NewApiKey, NewHost } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'
import { joinAs, registerHost } from './testing/joined-host.js'

const ENV = { WRENN_HOST_AGENT_ADDRESS: 'joined', WRENN_ENCRYPTION_KEY: '11'.repeat(32) }
let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({ env: ENV })
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await db.deleteFrom('joined_hosts').execute()
  await db.deleteFrom('attempts').execute()
})

const post = async (path: string, body: object): Promise<Response> => await platform.call('POST', path, body)
const place = async (): Promise<NewHost> => await json<NewHost>(await post('/v1/hosts', {}), 201)
const hostOf = async (id: string): Promise<Host> => await json<Host>(await platform.call('GET', `/v1/hosts/${id}`), 200)
const register = async (token: string, csr: string, address?: string): Promise<Response> =>
  await registerHost(platform, token, csr, address)
const refresh = async (token: string, csr: string): Promise<Response> =>
  await post('/v1/hosts/auth/refresh', { refresh_token: token, csr })
const codeOf = async (response: Response): Promise<[number, string]> => [
  response.status,
  ((await response.json()) as ErrorBody).error.code,
]
const request = async (): Promise<string> => (await createCertificateRequest()).request

const ready = async (): Promise<boolean> => {
  const answer = await platform.call('GET', '/ready')
  return ((await answer.json()) as { checks: { host: { ok: boolean } } }).checks.host.ok
}
const until = async (what: () => Promise<unknown>, value: unknown): Promise<void> =>
  await expect.poll(what, { timeout: 20_000 }).toEqual(value)

describe('a machine that joins', () => {
  it('runs the capsules of the platform: they are made there, commands and ports reach them', async () => {
    expect((await json<ErrorBody>(await post('/v1/capsules', {}), 503)).error.code).toBe('host_unavailable')
    const made = await place()
    expect(made.host).toMatchObject({ type: 'regular', status: 'pending' })
    const { door } = await joinAs(platform, platform.host, made)
    await using _door = door
    await until(ready, true)
    const { id } = await platform.create()
    const ran = await post(`/v1/capsules/${id}/exec`, { cmd: 'echo', args: ['over there'] })
    expect(await json(ran, 200)).toMatchObject({ exit_code: 0, stdout: 'over there\n' })

    const service = createServer((_request, response) => response.end('a port')).listen(0, '127.0.0.1')
    await new Promise((resolve) => service.once('listening', resolve))
    const { port } = service.address() as AddressInfo // it listens
    const asked = await fetch(platform.url, { headers: { 'e2b-sandbox-id': id, 'e2b-sandbox-port': `${port}` } })
    expect([asked.status, await asked.text()]).toEqual([200, 'a port'])
    service.close()

    await until(async () => (await hostOf(made.host.id)).status, 'online')
    expect(await hostOf(made.host.id)).toMatchObject({
      ...{ address: door.address, arch: 'x64', cpu_cores: 2, memory_mb: 4096, disk_gb: 100 },
      ...{ last_heartbeat_at: expect.any(String), certificate_expires_at: expect.any(String) },
    })
    const inUse = await codeOf(await platform.call('DELETE', `/v1/hosts/${made.host.id}`))
    expect(inUse).toEqual([409, 'in_use'])
    expect((await platform.call('DELETE', `/v1/hosts/${made.host.id}?force=true`)).status).toBe(204)
    await until(ready, false)
    expect(await codeOf(await platform.call('GET', `/v1/hosts/${made.host.id}`))).toEqual([404, 'host_not_found'])
    const audit = await json<AuditPage>(await platform.call('GET', '/v1/admin/audit-logs?resource_type=host'), 200)
    expect(audit.items.map(({ action }) => action)).toEqual(['host.delete', 'host.join', 'host.create'])
    expect(JSON.stringify(audit)).not.toContain(made.registration_token)
  }, 60_000)

  it('is asked for by admins of the platform alone', async () => {
    const key = await json<NewApiKey>(await post('/v1/api-keys', { name: 'team', scopes: ['capsules', 'admin'] }), 201)
    const as = { 'x-api-key': key.key }
    for (const [method, path] of [
      ['GET', '/v1/hosts'],
      ['POST', '/v1/hosts'],
    ] as const) {
      expect((await platform.call(method, path, method === 'POST' ? {} : undefined, as)).status).toBe(403)
    }
    const { host } = await place()
    const { host: other } = await place()
    expect(await json<Host[]>(await platform.call('GET', '/v1/hosts'), 200)).toEqual([host, other])
    expect(await codeOf(await platform.call('DELETE', `/v1/hosts/host-${'0'.repeat(25)}`))).toEqual([
      404,
      'host_not_found',
    ])
    expect((await platform.call('GET', '/v1/hosts/host-1')).status).toBe(400)
    expect((await platform.call('DELETE', `/v1/hosts/${host.id}`)).status).toBe(204)
  })
})

describe('a token of a host', () => {
  it('is good once, for one key: an answer that was lost can be asked for again', async () => {
    const { registration_token: token } = await place()
    const [own, other] = [await request(), await request()]
    const first = await json<HostCredentials>(await register(token, own), 201)
    const again = await json<HostCredentials>(await register(token, own), 201)
    expect(again.refresh_token).toBe(first.refresh_token)
    expect(again.ca_cert_pem).toBe(first.ca_cert_pem)
    expect(await codeOf(await register(token, other))).toEqual([401, 'host_not_trusted'])
    await json(await refresh(first.refresh_token, other), 200)
    expect(await codeOf(await register(token, own))).toEqual([401, 'host_not_trusted'])
  })

  it('is good for an hour, and until another one takes its place', async () => {
    const made = await place()
    const { id } = made.host
    const next = await json<NewHost>(await post(`/v1/hosts/${id}/token`, {}), 201)
    expect(next.host.id).toBe(id)
    expect(await codeOf(await register(made.registration_token, await request()))).toEqual([401, 'host_not_trusted'])
    await db
      .updateTable('joined_hosts')
      .set({ token_expires_at: new Date(Date.now() - 1) })
      .execute()
    expect(await codeOf(await register(next.registration_token, await request()))).toEqual([401, 'host_not_trusted'])
    const last = await json<NewHost>(await post(`/v1/hosts/${id}/token`, {}), 201)
    await json(await register(last.registration_token, await request()), 201)
  })

  it('lets a host that is trusted join again, as one that has moved: what it had is good no more', async () => {
    const { host, registration_token: token } = await place()
    const before = await json<HostCredentials>(await register(token, await request()), 201)
    const again = await json<NewHost>(await post(`/v1/hosts/${host.id}/token`, {}), 201)
    const { refresh_token: kept } = await json<HostCredentials>(
      await refresh(before.refresh_token, await request()),
      200,
    )
    const moved = await json<HostCredentials>(
      await register(again.registration_token, await request(), '127.0.0.1:2'),
      201,
    )
    expect(moved.host).toMatchObject({ id: host.id, address: '127.0.0.1:2' })
    expect(await codeOf(await refresh(kept, await request()))).toEqual([401, 'host_not_trusted'])
    expect((await hostOf(host.id)).status).not.toBe('revoked')
    const good = db.selectFrom('host_certificates').select('serial').where('host_id', '=', host.id)
    expect(await good.where('revoked_at', 'is', null).execute()).toHaveLength(1)
  })

  it('is nowhere in the database', async () => {
    const { registration_token: token } = await place()
    const { refresh_token: next } = await json<HostCredentials>(await register(token, await request()), 201)
    const stored = JSON.stringify(await db.selectFrom('joined_hosts').selectAll().execute())
    for (const secret of [token, next]) expect(stored).not.toContain(secret.slice(-43))
  })
})

describe('a refresh token', () => {
  it('gives the next one with a certificate, again for the same key alone', async () => {
    const { registration_token: token, host } = await place()
    const first = await json<HostCredentials>(await register(token, await request()), 201)
    const own = await request()
    const second = await json<HostCredentials>(await refresh(first.refresh_token, own), 200)
    expect(second.refresh_token).not.toBe(first.refresh_token)
    expect(second.cert_pem).not.toBe(first.cert_pem)
    const again = await json<HostCredentials>(await refresh(first.refresh_token, own), 200)
    expect(again.refresh_token).toBe(second.refresh_token)
    await json(await refresh(second.refresh_token, await request()), 200)
    expect((await hostOf(host.id)).status).not.toBe('revoked')
  })

  it('that comes again with another key is a stolen one: the host is called no more, until it joins again', async () => {
    const made = await place()
    const { id } = made.host
    const { door, refresh_token: stolen } = await joinAs(platform, platform.host, made)
    await using _door = door
    await until(ready, true)
    // Whichever of the two comes first: here the thief.
    const { refresh_token: next } = await json<HostCredentials>(await refresh(stolen, await request()), 200)
    expect(await codeOf(await refresh(stolen, await request()))).toEqual([401, 'host_not_trusted'])
    expect((await hostOf(id)).status).toBe('revoked')
    expect(await codeOf(await refresh(next, await request()))).toEqual([401, 'host_not_trusted'])
    await until(ready, false)
    const page = await json<AuditPage>(await platform.call('GET', '/v1/admin/audit-logs?action=host.revoke'), 200)
    expect(page.items[0]).toMatchObject({ resource_id: id, outcome: 'failure' })

    const anew = await json<NewHost>(await post(`/v1/hosts/${id}/token`, {}), 201)
    const { door: other } = await joinAs(platform, platform.host, anew)
    await using _other = other
    await until(ready, true)
    expect(platform.host.hostId).toBe(id)
  }, 60_000)

  it('is no guess', async () => {
    const { registration_token: token, host } = await place()
    const { refresh_token: good } = await json<HostCredentials>(await register(token, await request()), 201)
    const guessed = `${good.slice(0, -4)}AAAA`
    expect(await codeOf(await refresh(guessed, await request()))).toEqual([401, 'host_not_trusted'])
    expect(await codeOf(await refresh(token, await request()))).toEqual([401, 'host_not_trusted'])
    expect((await hostOf(host.id)).status).not.toBe('revoked')
  })
})

describe('an authority of hosts', () => {
  it('takes the place of another one while capsules are used', async () => {
    const made = await place()
    const joined = await joinAs(platform, platform.host, made)
    await using _door = joined.door
    await until(ready, true)
    const { id } = await platform.create()
    const statuses = new Set<number>()
    let calls = 0
    let stopped = false
    const use = (async () => {
      for (; !stopped; calls++) statuses.add((await post(`/v1/capsules/${id}/exec`, { cmd: 'true' })).status)
    })()
    const used = async (times: number): Promise<void> => {
      const before = calls
      await expect.poll(() => calls, { timeout: 20_000 }).toBeGreaterThan(before + times)
    }
    await used(2)
    expect((await post('/v1/hosts/rotate-authority', {})).status).toBe(204)
    const { key, request: csr } = await createCertificateRequest()
    const renewed = await json<HostCredentials>(await refresh(joined.refresh_token, csr), 200)
    expect(renewed.ca_cert_pem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
    joined.door.renew({ key, cert: renewed.cert_pem, ca: renewed.ca_cert_pem })
    await used(5)
    stopped = true
    await use
    expect([...statuses]).toEqual([200])
    await platform.restart() // it knows nothing but what the database has, and connects to what the host is now
    expect((await post(`/v1/capsules/${id}/exec`, { cmd: 'true' })).status).toBe(200)
    expect(await codeOf(await post('/v1/hosts/rotate-authority', {}))).toEqual([409, 'conflict'])
  }, 60_000)
})

describe('a platform with a host of its own', () => {
  it('takes no other', async () => {
    await using own = await startPlatform({ databaseUrl: platform.databaseUrl.replace(/\/test_\w+/, '/postgres') })
    expect(await codeOf(await own.call('POST', '/v1/hosts', {}))).toEqual([409, 'conflict'])
    expect(await codeOf(await own.call('POST', '/v1/hosts/rotate-authority', {}))).toEqual([409, 'conflict'])
    expect(await json<Host[]>(await own.call('GET', '/v1/hosts'), 200)).toEqual([])
  }, 60_000)
})

// The last one: a control plane remembers who guesses.
describe('a door without a key', () => {
  it('cannot be guessed at for long, and nothing else is taken for one', async () => {
    await place()
    const csr = await request()
    const bad = [
      { token: 'x', csr, address: 'nowhere' },
      { token: 'x', csr, address: 'a:0' },
      { token: 'x', csr: 'no request', address: 'a:1', extra: 1 },
      { csr, address: 'a:1' },
    ]
    for (const body of bad) expect((await post('/v1/hosts/register', body)).status).toBe(400)
    const { registration_token: good } = await json<NewHost>(
      await post(`/v1/hosts/${(await json<Host[]>(await platform.call('GET', '/v1/hosts'), 200))[0]?.id}/token`, {}),
      201,
    )
    expect(await codeOf(await register(good, 'no request'))).toEqual([400, 'invalid_request'])
    const statuses = new Set<number>()
    for (let tries = 0; tries < 70; tries++) statuses.add((await register(`wrj_${tries}`, csr)).status)
    expect([...statuses]).toEqual([401, 429])
  })
})
