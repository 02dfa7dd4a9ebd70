import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { capsule, FakeServer, ID, KEY, type Seen, sendJson } from './fake-server.fixture.js'
import { AuthenticationError, type WebSocketConstructor, Wrenn } from './index.js'

const wireAuth = {
  expires_at: '2026-11-28T12:15:00.000Z',
  session_id: 'ses-1',
  user_id: 'usr-1',
  team_id: 'team-1',
  email: 'ada@example.com',
  name: 'Ada',
}
const wireMe = {
  id: 'usr-1',
  name: 'Ada',
  email: 'ada@example.com',
  has_password: true,
  providers: [],
  is_admin: false,
  team_id: 'team-1',
  role: 'viewer',
  permissions: ['capsules.read'],
  features: ['hibernation'],
}
const refused = { error: { code: 'unauthorized', message: 'The access token has expired.' } }

let server: FakeServer

beforeEach(async () => {
  server = await new FakeServer().start()
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const paths = (): string[] => server.seen.map(({ method, path }) => `${method} ${path}`)
const bodyOf = (seen: Seen | undefined): unknown => JSON.parse(seen?.body ?? '')

describe('an account', () => {
  it('is signed in to with tokens, which other clients work with', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url })
    server.handler = (_seen, response) => sendJson(response, { ...wireAuth, token: 'wra_1', refresh_token: 'wrr_1' })
    expect(await wrenn.account.login('ada@example.com', 'correct horse')).toEqual({
      sessionId: 'ses-1',
      userId: 'usr-1',
      teamId: 'team-1',
      email: 'ada@example.com',
      name: 'Ada',
      expiresAt: new Date('2026-11-28T12:15:00Z'),
      token: 'wra_1',
      refreshToken: 'wrr_1',
    })
    expect(bodyOf(server.seen[0])).toEqual({ email: 'ada@example.com', password: 'correct horse' })
    expect(await wrenn.account.refresh('wrr_1')).toMatchObject({ token: 'wra_1' })
    expect(bodyOf(server.seen[1])).toEqual({ refresh_token: 'wrr_1' })
  })

  it('is deleted by who proves that it is theirs, and taken back by a login', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: 'wra_1' })
    const eraseAt = '2026-12-13T12:00:00.000Z'
    server.handler = ({ path }, response) => {
      if (path === '/v1/me') return sendJson(response, { erase_at: eraseAt }, 202)
      sendJson(response, { ...wireAuth, token: 'wra_2', refresh_token: 'wrr_2' })
    }
    await wrenn.account.confirm('correct horse')
    expect(await wrenn.account.delete('ada@example.com')).toEqual(new Date(eraseAt))
    await wrenn.account.login('ada@example.com', 'correct horse', { restore: true })
    expect(paths()).toEqual(['POST /v1/auth/confirm', 'DELETE /v1/me', 'POST /v1/auth/login'])
    expect(server.seen.map(bodyOf)).toEqual([
      { password: 'correct horse' },
      { confirmation: 'ada@example.com' },
      { email: 'ada@example.com', password: 'correct horse', restore: true },
    ])
  })

  it('is signed in to and connected by providers', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url })
    const github = { id: 'github', name: 'GitHub', login_url: 'http://w/auth/oauth/github' }
    server.handler = ({ path }, response) => {
      if (path === '/v1/auth/providers') return sendJson(response, [github])
      if (path.endsWith('/connect')) return sendJson(response, { auth_url: 'https://github.com/login' })
      if (path.startsWith('/v1/me/')) return void response.writeHead(204).end()
      sendJson(response, { ...wireAuth, token: 'wra_1', refresh_token: 'wrr_1' })
    }
    expect(await wrenn.account.providers.list()).toEqual([
      { id: 'github', name: 'GitHub', loginUrl: 'http://w/auth/oauth/github' },
    ])
    expect(await wrenn.account.loginWithCode('abc', { restore: true })).toMatchObject({ token: 'wra_1' })
    expect(bodyOf(server.seen[1])).toEqual({ code: 'abc', restore: true })
    const signedIn = new Wrenn({ apiUrl: server.url, apiKey: 'wra_1' })
    expect(await signedIn.account.providers.connect('github')).toBe('https://github.com/login')
    await signedIn.account.providers.disconnect('github')
    await signedIn.account.changePassword(undefined, 'correct horse')
    expect(paths().slice(2)).toEqual([
      'POST /v1/me/providers/github/connect',
      'DELETE /v1/me/providers/github',
      'POST /v1/me/password',
    ])
    expect(bodyOf(server.seen[4])).toEqual({ new_password: 'correct horse', confirm_password: 'correct horse' })
  })

  it('lets in a program that has no page, as soon as its person has approved it', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url })
    const made = {
      device_code: 'abc',
      user_code: 'BCDF-GHJK',
      verification_uri: 'http://w/device',
      verification_uri_complete: 'http://w/device?code=BCDF-GHJK',
      expires_at: '2026-11-28T12:15:00.000Z',
      interval_sec: 0.01,
    }
    let asked = 0
    server.handler = ({ path }, response) => {
      if (path === '/v1/auth/device') return sendJson(response, made, 201)
      if (asked++ < 2) return sendJson(response, { status: 'pending' }, 202)
      sendJson(response, { ...wireAuth, token: 'wra_1', refresh_token: 'wrr_1' })
    }
    const login = await wrenn.account.beginDeviceLogin('a build machine')
    expect(login).toMatchObject({ userCode: 'BCDF-GHJK', verificationUri: 'http://w/device', intervalMs: 10 })
    expect(await wrenn.account.finishDeviceLogin(login)).toMatchObject({ token: 'wra_1', email: 'ada@example.com' })
    expect(asked).toBe(3)
  })

  it('shows its person which program waits, and takes the decision', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: 'wra_1' })
    const waiting = {
      client: 'x',
      ip: '10.0.0.1',
      created_at: '2026-11-28T12:00:00Z',
      expires_at: '2026-11-28T12:10:00Z',
    }
    server.handler = (_seen, response) => sendJson(response, waiting)
    expect(await wrenn.account.waitingDevice('BCDF-GHJK')).toMatchObject({ client: 'x', ip: '10.0.0.1' })
    await wrenn.account.decideDevice('BCDF-GHJK', false)
    expect(paths()).toEqual(['GET /v1/auth/device/BCDF-GHJK', 'POST /v1/auth/device/BCDF-GHJK'])
    expect(bodyOf(server.seen[1])).toEqual({ approve: false })
  })

  it('says who it is of and what it may do', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
    server.handler = (_seen, response) => sendJson(response, wireMe)
    expect(await wrenn.account.me()).toEqual({
      id: 'usr-1',
      name: 'Ada',
      email: 'ada@example.com',
      hasPassword: true,
      providers: [],
      isAdmin: false,
      teamId: 'team-1',
      role: 'viewer',
      permissions: ['capsules.read'],
      features: ['hibernation'],
    })
    expect(await wrenn.account.rename('Ada L.')).toMatchObject({ id: 'usr-1' })
    expect(bodyOf(server.seen[1])).toEqual({ name: 'Ada L.' })
  })

  it('has its passwords changed and reset, and is signed up for', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
    server.handler = (_seen, response) => response.writeHead(204).end()
    await wrenn.account.changePassword('old password', 'new password')
    await wrenn.account.forgotPassword('ada@example.com')
    await wrenn.account.resetPassword('code', 'new password')
    await wrenn.account.signUp({ email: 'ada@example.com', name: 'Ada', password: 'correct horse' })
    expect(server.seen.map((seen) => [seen.path, bodyOf(seen)])).toEqual([
      ['/v1/me/password', { current_password: 'old password', new_password: 'new password' }],
      ['/v1/me/password/reset', { email: 'ada@example.com' }],
      ['/v1/me/password/reset/confirm', { token: 'code', new_password: 'new password' }],
      ['/v1/auth/signup', { email: 'ada@example.com', name: 'Ada', password: 'correct horse' }],
    ])
  })

  it('lists where it is logged in, and ends that', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
    const at = '2026-11-28T12:00:00.000Z'
    server.handler = (seen, response) => {
      if (seen.method === 'DELETE') response.writeHead(204).end()
      else {
        const times = { created_at: at, last_used: at, expires_at: at }
        sendJson(response, [{ id: 'ses-1', team_id: 'team-1', current: true, ip: '::1', user_agent: 'curl', ...times }])
      }
    }
    expect(await wrenn.sessions.list()).toEqual([
      {
        id: 'ses-1',
        teamId: 'team-1',
        isCurrent: true,
        ip: '::1',
        userAgent: 'curl',
        createdAt: new Date(at),
        lastUsedAt: new Date(at),
        expiresAt: new Date(at),
      },
    ])
    await wrenn.sessions.revoke('ses-2')
    await wrenn.sessions.revokeOthers()
    expect(paths().slice(1)).toEqual(['DELETE /v1/auth/sessions/ses-2', 'DELETE /v1/auth/sessions'])
  })
})

describe('a page', () => {
  it('asks for cookies when it signs in, and says that it is one with every request', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, cookies: true })
    server.handler = (_seen, response) => sendJson(response, wireAuth)
    expect(await wrenn.account.activate('code', 'correct horse')).toMatchObject({
      token: undefined,
      refreshToken: undefined,
    })
    expect(bodyOf(server.seen[0])).toEqual({ token: 'code', password: 'correct horse', cookies: true })
    const person = { email: 'ada@example.com', name: 'Ada', password: 'correct horse' }
    await wrenn.account.setUp('code', person)
    expect(server.seen[1]?.path).toBe('/v1/auth/setup')
    expect(bodyOf(server.seen[1])).toEqual({ code: 'code', ...person, cookies: true })
    expect(await wrenn.account.switchTeam('team-2')).toMatchObject({ teamId: 'team-1' })
    for (const { headers } of server.seen) expect(headers).toMatchObject({ 'x-wrenn-csrf': '1' })
  })

  it('whose cookie has expired refreshes once for all its calls, and none of them fails', async () => {
    const onSignedOut = vi.fn()
    const wrenn = new Wrenn({ apiUrl: server.url, cookies: true, onSignedOut })
    let isExpired = true
    server.handler = (seen, response) => {
      if (seen.path === '/v1/auth/refresh') isExpired = false
      else if (isExpired) return sendJson(response, refused, 401)
      sendJson(response, seen.path === '/v1/me' ? wireMe : wireAuth)
    }
    const all = await Promise.all([wrenn.account.me(), wrenn.account.me(), wrenn.account.me()])
    expect(all.map(({ id }) => id)).toEqual(['usr-1', 'usr-1', 'usr-1'])
    expect(paths().filter((path) => path === 'POST /v1/auth/refresh')).toHaveLength(1)
    expect(onSignedOut).not.toHaveBeenCalled()
  })

  it('that has no session hears of it, and a wrong password says nothing of that', async () => {
    const onSignedOut = vi.fn()
    const wrenn = new Wrenn({ apiUrl: server.url, cookies: true, onSignedOut })
    server.handler = (_seen, response) => sendJson(response, refused, 401)
    await expect(wrenn.account.login('ada@example.com', 'wrong')).rejects.toThrow(AuthenticationError)
    expect(onSignedOut).not.toHaveBeenCalled()
    await expect(wrenn.account.me()).rejects.toThrow(AuthenticationError)
    expect(onSignedOut).toHaveBeenCalledOnce()
    await wrenn.account.logout()
  })

  it('refreshes before it opens a WebSocket, because a refused handshake does not say why', async () => {
    let before: string[] = []
    class NoSocket {
      constructor() {
        before = paths()
        throw new Error('no network')
      }
    }
    const webSocket = NoSocket as unknown as WebSocketConstructor // it never comes to be one
    const wrenn = new Wrenn({ apiUrl: server.url, cookies: true, webSocket })
    server.handler = (seen, response) => sendJson(response, seen.method === 'POST' ? wireAuth : capsule('running'))
    const box = await wrenn.capsules.get(ID)
    await expect(box.stream('true')).rejects.toThrow('no network')
    expect(before).toContain('POST /v1/auth/refresh')
  })
})
