import { randomBytes } from 'node:crypto'
import {
  type ApiKey,
  type Auth,
  type ErrorBody,
  type Me,
  type NewApiKey,
  type NewUser,
  permissionsOfRole,
  type Session,
  type User,
} from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const PASSWORD = 'correct horse battery'

interface Tokens extends Auth {
  readonly token: string
  readonly refresh_token: string
}

let platform: Platform
let replica: ControlPlane
let db: Db
let owner: Tokens
let ownerEmail: string

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1' } })
  replica = await startReplica(platform)
  db = openDatabase({ url: platform.databaseUrl })
  ownerEmail = newEmail()
  const made = await addUser(ownerEmail)
  owner = await activate(made.activation_token)
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const newEmail = (): string => `p${randomBytes(6).toString('hex')}@example.com`
/** Each from a place of its own, unless one is given: so no test locks out another. */
const newPlace = (): string => [...randomBytes(3)].reduce((ip, byte) => `${ip}.${byte}`, '10')

interface Call {
  readonly method?: string
  readonly body?: object
  readonly token?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly place?: string
  readonly url?: string
}

function call(path: string, { method, body, token, headers = {}, place, url }: Call = {}): Promise<Response> {
  return fetch((url ?? platform.url) + path, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers: {
      'x-forwarded-for': place ?? newPlace(),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
}

async function addUser(email: string, more: object = {}): Promise<NewUser> {
  return await json<NewUser>(await platform.call('POST', '/v1/admin/users', { email, name: 'Somebody', ...more }), 201)
}

const activate = async (token: string): Promise<Tokens> =>
  await json<Tokens>(await call('/v1/auth/activate', { body: { token, password: PASSWORD } }), 200)

const login = (email: string, password = PASSWORD, place = newPlace()) =>
  call('/v1/auth/login', { body: { email, password }, place })

/** An active account with a session. */
async function newPerson(): Promise<Tokens> {
  return await activate((await addUser(newEmail())).activation_token)
}

async function refusal(response: Response): Promise<[number, string]> {
  const { error } = await json<ErrorBody>(response, response.status)
  return [response.status, error.code]
}

async function statusOf(token: string, url = platform.url): Promise<number> {
  const response = await call('/v1/me', { token, url })
  await response.arrayBuffer()
  return response.status
}

const refresh = (refresh_token: string, url = platform.url) =>
  call('/v1/auth/refresh', { body: { refresh_token }, url })

describe('accounts', () => {
  it('that come first are admins of the platform and own the team that was there before', async () => {
    const me = await json<Me>(await call('/v1/me', { token: owner.token }), 200)
    expect(me).toMatchObject({ email: ownerEmail, is_admin: true, role: 'owner', has_password: true, providers: [] })
    const keys = await json<ApiKey[]>(await platform.call('GET', '/v1/api-keys'), 200)
    expect(me.team_id).toBe(keys[0]?.team_id)
    const other = await newPerson()
    const theirs = await json<Me>(await call('/v1/me', { token: other.token }), 200)
    expect(theirs).toMatchObject({ is_admin: false, role: 'owner' })
    expect(theirs.team_id).not.toBe(me.team_id)
  })

  it('use the platform as their team does, and see nothing of others', async () => {
    const person = await newPerson()
    const capsule = await platform.create()
    expect(await refusal(await call(`/v1/capsules/${capsule.id}`, { token: person.token }))).toEqual([
      404,
      'capsule_not_found',
    ])
    const seen = await call(`/v1/capsules/${capsule.id}`, { token: owner.token })
    expect(seen.status).toBe(200)
    const made = await json<NewApiKey>(
      await call('/v1/api-keys', { token: person.token, body: { scopes: ['capsules'] } }),
      201,
    )
    expect(made).toMatchObject({ created_by: person.user_id, team_id: person.team_id })
    expect(await refusal(await call('/v1/admin/users', { token: person.token }))).toEqual([403, 'forbidden'])
    expect(await refusal(await call('/v1/api-keys', { token: person.token, body: { scopes: ['platform'] } }))).toEqual([
      403,
      'forbidden',
    ])
  })

  it('revoke the keys that they made, and others only when they manage the team', async () => {
    const [boss, member] = [await newPerson(), await newPerson()]
    await db
      .insertInto('team_members')
      .values({ team_id: boss.team_id, user_id: member.user_id, role: 'member' })
      .execute()
    await json(await call('/v1/auth/switch-team', { token: member.token, body: { team_id: boss.team_id } }), 200)
    const make = async (token: string) =>
      await json<NewApiKey>(await call('/v1/api-keys', { token, body: { scopes: ['read'] } }), 201)
    const [theirs, own, lasting] = [await make(boss.token), await make(member.token), await make(boss.token)]
    const revoke = (id: string, token: string) => call(`/v1/api-keys/${id}`, { method: 'DELETE', token })
    expect(await refusal(await revoke(theirs.id, member.token))).toEqual([403, 'forbidden'])
    expect((await revoke(own.id, member.token)).status).toBe(204)
    expect((await revoke(lasting.id, boss.token)).status).toBe(204)
  })

  it('are made for addresses that mail can be sent to, and for no others', async () => {
    expect((await addUser("o'neill+wrenn@example.com")).email).toBe("o'neill+wrenn@example.com")
    for (const email of ['a..b@example.com', '.a@example.com', 'a@-example.com', 'a(b)@example.com', 'a@[127.0.0.1]']) {
      const made = await platform.call('POST', '/v1/admin/users', { email, name: 'Somebody' })
      expect(await refusal(made)).toEqual([400, 'invalid_request'])
    }
  })

  it('are made once for each address, whatever its case, and activated once', async () => {
    const email = newEmail()
    const { activation_token: token } = await addUser(email)
    expect(
      await refusal(await platform.call('POST', '/v1/admin/users', { email: email.toUpperCase(), name: 'X' })),
    ).toEqual([409, 'email_taken'])
    expect(await refusal(await login(email))).toEqual([401, 'unauthorized'])
    expect(await refusal(await call('/v1/auth/activate', { body: { token } }))).toEqual([400, 'invalid_request'])
    await activate(token)
    expect(await refusal(await call('/v1/auth/activate', { body: { token, password: PASSWORD } }))).toEqual([
      400,
      'invalid_token',
    ])
    expect((await login(email.toUpperCase())).status).toBe(200)
  })

  it('cannot be made by strangers once there is one, unless the platform says so', async () => {
    const body = { email: newEmail(), password: PASSWORD, name: 'Stranger' }
    expect(await refusal(await call('/v1/auth/signup', { body }))).toEqual([403, 'forbidden'])
  })

  it('change their password with the one they have, and all other sessions end', async () => {
    const email = newEmail()
    const first = await activate((await addUser(email)).activation_token)
    const second = await json<Tokens>(await login(email), 200)
    const change = (body: object) => call('/v1/me/password', { token: first.token, body })
    expect(await refusal(await change({ current_password: 'no', new_password: 'a longer one' }))).toEqual([
      401,
      'wrong_password',
    ])
    expect((await change({ current_password: PASSWORD, new_password: 'a longer one' })).status).toBe(204)
    expect([await statusOf(first.token), await statusOf(second.token)]).toEqual([200, 401])
    expect(await refusal(await login(email))).toEqual([401, 'unauthorized'])
    expect((await login(email, 'a longer one')).status).toBe(200)
  })
})

describe('a login', () => {
  it('has one answer for an address that nobody has and a password that is wrong', async () => {
    const { email } = await newPerson()
    const [known, unknown] = [await login(email, 'wrong'), await login(newEmail(), 'wrong')]
    const answers = await Promise.all([known, unknown].map((response) => json<ErrorBody>(response, 401)))
    const [a, b] = answers.map(({ error: { requestId: _, ...rest } }) => rest)
    expect(a).toEqual(b)
  })

  it('is refused after ten wrong ones from the same place, while the right person gets in from elsewhere', async () => {
    const { email } = await newPerson()
    const place = newPlace()
    const tries = await Promise.all(Array.from({ length: 14 }, () => login(email, 'guess', place)))
    const statuses = tries.map(({ status }) => status)
    expect(statuses.filter((status) => status === 401)).toHaveLength(10)
    const refused = tries.find(({ status }) => status === 429)
    expect(Number(refused?.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(await refusal(await login(email, PASSWORD, place))).toEqual([429, 'limit_exceeded'])
    const elsewhere = { body: { email, password: PASSWORD }, place, url: replica.url }
    // The other control plane believes no proxy, so all come from one place to it; the count is in the database.
    expect((await call('/v1/auth/login', elsewhere)).status).toBe(200)
    expect((await login(email)).status).toBe(200)
  })
})

describe('a session', () => {
  it('is ended on one control plane and refused on the other', async () => {
    const { token, session_id } = await newPerson()
    expect([await statusOf(token), await statusOf(token, replica.url)]).toEqual([200, 200])
    expect((await call(`/v1/auth/sessions/${session_id}`, { method: 'DELETE', token })).status).toBe(204)
    expect(await statusOf(token)).toBe(401)
    await expect.poll(() => statusOf(token, replica.url)).toBe(401)
  })

  it('goes on with the next tokens, on whichever control plane', async () => {
    const first = await newPerson()
    const second = await json<Tokens>(await refresh(first.refresh_token, replica.url), 200)
    const third = await json<Tokens>(await refresh(second.refresh_token), 200)
    for (const { token } of [first, second, third]) expect(await statusOf(token)).toBe(200)
    expect(new Set([first, second, third].map(({ refresh_token }) => refresh_token)).size).toBe(3)
  })

  it('gives tabs that refresh at once the same next token', async () => {
    const first = await newPerson()
    const both = await Promise.all([refresh(first.refresh_token), refresh(first.refresh_token, replica.url)])
    const [a, b] = await Promise.all(both.map((response) => json<Tokens>(response, 200)))
    expect(a?.refresh_token).toBe(b?.refresh_token)
    expect((await refresh(a?.refresh_token ?? '')).status).toBe(200)
  })

  it('ends with all of its tokens when one that was used comes again', async () => {
    const first = await newPerson()
    const second = await json<Tokens>(await refresh(first.refresh_token), 200)
    const third = await json<Tokens>(await refresh(second.refresh_token), 200)
    expect(await refusal(await refresh(first.refresh_token))).toEqual([401, 'unauthorized'])
    for (const { token } of [first, second, third]) expect(await statusOf(token)).toBe(401)
    expect(await refusal(await refresh(third.refresh_token))).toEqual([401, 'unauthorized'])
  })

  it('ends when the token before the last one comes again after the time for tabs', async () => {
    const first = await newPerson()
    const second = await json<Tokens>(await refresh(first.refresh_token), 200)
    await age(first.session_id)
    expect(await refusal(await refresh(first.refresh_token))).toEqual([401, 'unauthorized'])
    expect(await statusOf(second.token)).toBe(401)
  })

  it('cannot be ended by who knows only its id', async () => {
    const { token, refresh_token } = await newPerson()
    const forged = refresh_token.slice(0, -8) + randomBytes(6).toString('base64url')
    expect(await refusal(await refresh(forged))).toEqual([401, 'unauthorized'])
    expect(await refusal(await refresh('wrr_nonsense'))).toEqual([401, 'unauthorized'])
    expect(await statusOf(token)).toBe(200)
  })

  it('is listed, and all others can be ended', async () => {
    const email = newEmail()
    const first = await activate((await addUser(email)).activation_token)
    const second = await json<Tokens>(await login(email), 200)
    const list = await json<Session[]>(await call('/v1/auth/sessions', { token: second.token }), 200)
    expect(list.map(({ id, current }) => [id, current]).sort()).toEqual(
      [
        [first.session_id, false],
        [second.session_id, true],
      ].sort(),
    )
    expect((await call('/v1/auth/sessions', { method: 'DELETE', token: second.token })).status).toBe(204)
    expect([await statusOf(first.token), await statusOf(second.token)]).toEqual([401, 200])
    const strange = await newPerson()
    const path = `/v1/auth/sessions/${second.session_id}`
    expect(await refusal(await call(path, { method: 'DELETE', token: strange.token }))).toEqual([
      404,
      'session_not_found',
    ])
  })

  it('moves to another team of its person only', async () => {
    const person = await newPerson()
    const teamId = await createTeam(db, 'Second')
    const move = () => call('/v1/auth/switch-team', { token: person.token, body: { team_id: teamId } })
    expect(await refusal(await move())).toEqual([404, 'not_found'])
    await db.insertInto('team_members').values({ team_id: teamId, user_id: person.user_id, role: 'viewer' }).execute()
    const moved = await json<Auth>(await move(), 200)
    expect(moved.team_id).toBe(teamId)
    expect(await json<Me>(await call('/v1/me', { token: person.token }), 200)).toMatchObject({
      role: 'viewer',
      permissions: [...permissionsOfRole('viewer'), 'account.use'].sort(),
    })
    expect(await refusal(await call('/v1/capsules', { token: person.token, body: {} }))).toEqual([403, 'forbidden'])
  })

  it('has the role of this moment, everywhere, and none once its person has left the team', async () => {
    const person = await newPerson()
    const create = (url: string) => call('/v1/api-keys', { token: person.token, body: {}, url })
    expect((await create(replica.url)).status).toBe(201)
    await db.updateTable('team_members').set({ role: 'viewer' }).where('user_id', '=', person.user_id).execute()
    for (const url of [platform.url, replica.url]) {
      await expect.poll(async () => (await create(url)).status).toBe(403)
    }
    await db.deleteFrom('team_members').where('user_id', '=', person.user_id).execute()
    const seen = async () => await refusal(await call('/v1/me', { token: person.token, url: replica.url }))
    await expect.poll(seen).toEqual([403, 'no_team'])
  })

  it('opens sockets, by header and by first message, that end with it', async () => {
    const capsule = await platform.create()
    const session = await json<Tokens>(await login(ownerEmail), 200)
    const byMessage = platform.open(`/v1/capsules/${capsule.id}/pty`, { key: undefined })
    await byMessage.send({ type: 'auth', token: session.token })
    await byMessage.send({ type: 'start', cmd: '/bin/sh', cols: 80, rows: 24 })
    await byMessage.until('started')
    await call('/v1/auth/logout', { method: 'POST', token: session.token })
    expect((await byMessage.until('error')).at(-1)).toMatchObject({ code: 'unauthorized', fatal: true })
    await expect.poll(() => byMessage.closed?.code).toBe(1008)
  })
})

describe('a page', () => {
  const page = () => ({ origin: new URL(platform.url).origin })
  const cookiesOf = (response: Response) =>
    response.headers
      .getSetCookie()
      .map((cookie) => cookie.split(';', 1)[0])
      .join('; ')

  async function pageLogin(): Promise<{ response: Response; cookie: string }> {
    const body = { email: ownerEmail, password: PASSWORD, cookies: true }
    const response = await call('/v1/auth/login', { body, headers: page() })
    return { response, cookie: cookiesOf(response) }
  }

  it('gets its tokens as cookies that no script reads, and not in the answer', async () => {
    const { response, cookie } = await pageLogin()
    const body = await json<Partial<Tokens>>(response, 200)
    expect([body.token, body.refresh_token]).toEqual([undefined, undefined])
    for (const set of response.headers.getSetCookie()) expect(set).toMatch(/; Path=\/; HttpOnly; SameSite=Strict$/)
    expect((await call('/v1/me', { headers: { cookie } })).status).toBe(200)
    const next = await call('/v1/auth/refresh', { method: 'POST', headers: { cookie, ...page() } })
    expect((await json<Partial<Tokens>>(next, 200)).token).toBeUndefined()
    expect((await call('/v1/me', { headers: { cookie: cookiesOf(next) } })).status).toBe(200)
    const out = await call('/v1/auth/logout', { method: 'POST', headers: { cookie: cookiesOf(next), ...page() } })
    expect(out.status).toBe(204)
    expect(out.headers.getSetCookie().join()).toContain('wrenn_access=;')
    expect((await call('/v1/me', { headers: { cookie } })).status).toBe(401)
  })

  it('has names for its cookies, over TLS, that no other host can set', async () => {
    const { host } = new URL(platform.url)
    const body = { email: ownerEmail, password: PASSWORD, cookies: true }
    const response = await call('/v1/auth/login', { body, headers: { origin: `https://${host}` } })
    for (const set of response.headers.getSetCookie()) expect(set).toMatch(/^__Host-wrenn_.*; Secure/)
  })

  it('from elsewhere does nothing with the cookie of somebody who is logged in here', async () => {
    const { cookie } = await pageLogin()
    const post = (headers: Record<string, string>) =>
      call('/v1/auth/logout', { method: 'POST', headers: { cookie, ...headers } })
    for (const headers of [
      {},
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: `http://80-cl-${'0'.repeat(25)}.localhost:8000` },
      { ...page(), 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site', 'x-wrenn-csrf': '1' },
    ]) {
      expect([headers, await refusal(await post(headers))]).toEqual([headers, [403, 'forbidden']])
    }
    const foreignLogin = { email: ownerEmail, password: PASSWORD, cookies: true }
    expect(
      await refusal(await call('/v1/auth/login', { body: foreignLogin, headers: { origin: 'https://evil.example' } })),
    ).toEqual([403, 'forbidden'])
    expect(await refusal(await call('/v1/me', { headers: { cookie, origin: 'https://evil.example' } }))).toEqual([
      403,
      'forbidden',
    ])
    expect((await post({ 'x-wrenn-csrf': '1' })).status).toBe(204)
  })
})

describe('an admin of the platform', () => {
  const patch = (id: string, body: object, token = owner.token) =>
    call(`/v1/admin/users/${id}`, { method: 'PATCH', token, body })

  it('lists accounts and makes others admins, but leaves one', async () => {
    const person = await newPerson()
    const users = await json<User[]>(await call('/v1/admin/users?limit=200', { token: owner.token }), 200)
    expect(users[0]).toMatchObject({ id: owner.user_id, is_admin: true, status: 'active' })
    const [, second] = users
    const page = await json<User[]>(
      await call(`/v1/admin/users?limit=1&after=${users[0]?.id}`, { token: owner.token }),
      200,
    )
    expect(page).toEqual([second])
    expect(await refusal(await patch(owner.user_id, { is_admin: false }))).toEqual([409, 'conflict'])
    expect(await refusal(await patch(owner.user_id, { status: 'disabled' }))).toEqual([409, 'conflict'])
    expect((await patch(person.user_id, { is_admin: true })).status).toBe(200)
    await expect.poll(async () => (await call('/v1/admin/users', { token: person.token })).status).toBe(200)
    const keys = await Promise.all(
      [['monitor'], ['platform', 'read'], ['read']].map(async (scopes) => {
        const made = await call('/v1/api-keys', { token: person.token, body: { scopes } })
        return (await json<NewApiKey>(made, 201)).key
      }),
    )
    expect((await patch(person.user_id, { is_admin: false })).status).toBe(200)
    expect((await call('/v1/admin/users', { token: person.token })).status).toBe(403)
    const statuses = () =>
      Promise.all(keys.map((key) => call('/v1/capsules', { token: key }).then(({ status }) => status)))
    await expect.poll(statuses).toEqual([401, 401, 200])
    expect(await refusal(await patch(`usr-${'0'.repeat(25)}`, { is_admin: true }))).toEqual([404, 'user_not_found'])
  })

  it('disables an account: its sessions and keys, and the keys that these made, stop at once everywhere', async () => {
    const email = newEmail()
    const person = await activate((await addUser(email)).activation_token)
    const made = await json<NewApiKey>(await call('/v1/api-keys', { token: person.token, body: {} }), 201)
    const again = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { scopes: ['read'] }, { 'x-api-key': made.key }),
      201,
    )
    const reads = async (key: string, url: string) => {
      const response = await fetch(`${url}/v1/capsules`, { headers: { 'x-api-key': key } })
      await response.arrayBuffer()
      return response.status
    }
    for (const key of [made.key, again.key]) expect(await reads(key, replica.url)).toBe(200)
    expect(await statusOf(person.token, replica.url)).toBe(200)
    expect((await patch(person.user_id, { status: 'disabled' })).status).toBe(200)
    for (const url of [platform.url, replica.url]) {
      await expect.poll(() => statusOf(person.token, url)).toBe(401)
      for (const key of [made.key, again.key]) await expect.poll(() => reads(key, url)).toBe(401)
    }
    expect(await refusal(await login(email))).toEqual([403, 'account_disabled'])
    expect(await refusal(await refresh(person.refresh_token))).toEqual([401, 'unauthorized'])
    expect((await patch(person.user_id, { status: 'active' })).status).toBe(200)
    expect((await login(email)).status).toBe(200)
    expect(await reads(made.key, platform.url)).toBe(401)
  })
})

describe('the audit trail', () => {
  it('tells of logins, also those that failed, and of what a person did', async () => {
    const email = newEmail()
    const person = await activate((await addUser(email)).activation_token)
    await login(email, 'wrong')
    await login('nobody@example.org', 'wrong')
    const { items } = await json<{ items: { action: string; outcome: string; actor_type: string }[] }>(
      await call('/v1/audit-logs', { token: person.token }),
      200,
    )
    const told = items.map(({ action, outcome, actor_type }) => `${action} ${outcome} ${actor_type}`)
    expect(told[0]).toBe('session.login failure user')
    // Those of one transaction may have the same millisecond.
    expect(told.slice(1).sort()).toEqual(['session.login success user', 'user.activate success user'])
    const nobodys = await json<{ items: { actor_name: string; outcome: string }[] }>(
      await call('/v1/admin/audit-logs', { token: owner.token }),
      200,
    )
    expect(nobodys.items[0]).toMatchObject({ actor_name: 'nobody@example.org', outcome: 'failure' })
    expect(JSON.stringify([items, nobodys])).not.toContain('wrong')
  })
})

describe('the database', () => {
  it('holds no token and no password', async () => {
    const person = await newPerson()
    const stored = JSON.stringify([
      await db.selectFrom('users').selectAll().execute(),
      await db.selectFrom('sessions').selectAll().execute(),
      await db.selectFrom('access_tokens').selectAll().execute(),
      await db.selectFrom('email_tokens').selectAll().execute(),
      await db.selectFrom('attempts').selectAll().execute(),
    ])
    for (const secret of [PASSWORD, person.token, person.refresh_token.slice(30)]) expect(stored).not.toContain(secret)
  })
})

/** As if its last rotation was longer ago than tabs need. */
async function age(sessionId: string): Promise<void> {
  await sql`UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds' WHERE id = ${sessionId}`.execute(db)
}
