import { randomBytes } from 'node:crypto'
import type { AuditPage, Auth, DeviceLogin, ErrorBody, NewUser, Session, WaitingDevice } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

interface Tokens extends Auth {
  readonly token: string
}

let platform: Platform
let person: Tokens

beforeAll(async () => {
  platform = await startPlatform({
    env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1', WRENN_PUBLIC_URL: 'https://wrenn.example/' },
  })
  person = await newPerson()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const newPlace = (): string => [...randomBytes(3)].reduce((ip, byte) => `${ip}.${byte}`, '10')

interface Call {
  readonly method?: string
  readonly body?: object
  readonly token?: string
  readonly place?: string
}

function call(path: string, { method, body, token, place = newPlace() }: Call = {}): Promise<Response> {
  return fetch(platform.url + path, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers: {
      'x-forwarded-for': place,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
}

async function newPerson(): Promise<Tokens> {
  const wanted = { email: `d${randomBytes(6).toString('hex')}@example.com`, name: 'Ada' }
  const { activation_token } = await json<NewUser>(await platform.call('POST', '/v1/admin/users', wanted), 201)
  const body = { token: activation_token, password: 'correct horse battery' }
  return await json<Tokens>(await call('/v1/auth/activate', { body }), 200)
}

const begin = async (place = newPlace(), client = 'wrenn on builder'): Promise<DeviceLogin> =>
  await json<DeviceLogin>(await call('/v1/auth/device', { body: { client }, place }), 201)
const ask = ({ device_code }: DeviceLogin, place = newPlace()): Promise<Response> =>
  call('/v1/auth/device/token', { body: { device_code }, place })
const decide = (code: string, approve: boolean, { token } = person): Promise<Response> =>
  call(`/v1/auth/device/${code}`, { body: { approve }, token })

async function refusal(response: Response): Promise<[number, string]> {
  const { error } = await json<ErrorBody>(response, response.status)
  return [response.status, error.code]
}

describe('a login of a program', () => {
  it('waits until its person approves it, and then has a session that is listed and ended as any other', async () => {
    const place = newPlace()
    const login = await begin(place)
    expect(login.user_code).toMatch(/^[B-Z]{4}-[B-Z]{4}$/)
    expect(login.verification_uri).toBe('https://wrenn.example/device')
    expect(login.verification_uri_complete).toBe(`https://wrenn.example/device?code=${login.user_code}`)
    expect(await json(await ask(login), 202)).toEqual({ status: 'pending' })

    // As people type it.
    const typed = login.user_code.toLowerCase().replace('-', ' ')
    const looked = await call(`/v1/auth/device/${encodeURIComponent(typed)}`, { token: person.token })
    expect(await json<WaitingDevice>(looked, 200)).toMatchObject({ client: 'wrenn on builder', ip: place })
    expect((await decide(typed.replace(' ', ''), true)).status).toBe(204)

    const opened = await json<Tokens>(await ask(login), 200)
    expect(opened).toMatchObject({ user_id: person.user_id, team_id: person.team_id })
    const sessions = await json<Session[]>(await call('/v1/auth/sessions', { token: opened.token }), 200)
    expect(sessions.find(({ current }) => current)?.id).toBe(opened.session_id)
    expect(sessions.map(({ id }) => id)).toContain(person.session_id)
    await call(`/v1/auth/sessions/${opened.session_id}`, { method: 'DELETE', token: person.token })
    expect(await refusal(await call('/v1/me', { token: opened.token }))).toEqual([401, 'unauthorized'])
  })

  it('is good once, however many ask at once', async () => {
    const login = await begin()
    await decide(login.user_code, true)
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(login)))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400, 400, 400, 400, 400])
    expect(await refusal(await ask(login))).toEqual([400, 'login_expired'])
    expect(await refusal(await decide(login.user_code, true))).toEqual([404, 'not_found'])
  })

  it('can be refused, by the first word about it', async () => {
    const login = await begin()
    expect((await decide(login.user_code, false)).status).toBe(204)
    expect(await refusal(await decide(login.user_code, true))).toEqual([404, 'not_found'])
    expect(await refusal(await ask(login))).toEqual([403, 'forbidden'])
  })

  it('is nothing any more when the session that approved it has ended', async () => {
    const other = await newPerson()
    const login = await begin()
    await decide(login.user_code, true, other)
    await call('/v1/auth/logout', { method: 'POST', token: other.token })
    expect(await refusal(await ask(login))).toEqual([400, 'login_expired'])
  })

  it('works in the team in which it was approved', async () => {
    const made = await json<{ id: string }>(
      await call('/v1/teams', { body: { name: 'Another' }, token: person.token }),
      201,
    )
    const moved = await json<Tokens>(
      await call('/v1/auth/switch-team', { body: { team_id: made.id }, token: person.token }),
      200,
    )
    const login = await begin()
    await decide(login.user_code, true, moved)
    expect((await json<Tokens>(await ask(login), 200)).team_id).toBe(made.id)
  })

  it('is told in the audit trail with what the program said of itself', async () => {
    const someone = await newPerson()
    const login = await begin(newPlace(), 'a build machine')
    await decide(login.user_code, true, someone)
    const { items } = await json<AuditPage>(await call('/v1/audit-logs', { token: someone.token }), 200)
    const entry = items.find(({ action }) => action === 'session.approve_device')
    expect(entry?.details).toMatchObject({ client: 'a build machine' })
  })
})

describe('what cannot be a login of a program', () => {
  it.each([
    ['no body', '/v1/auth/device', {}],
    ['no client', '/v1/auth/device', { client: '  ' }],
    ['a long client', '/v1/auth/device', { client: 'x'.repeat(101) }],
    ['a field that does not exist', '/v1/auth/device', { client: 'x', scope: 'all' }],
    ['no code', '/v1/auth/device/token', {}],
    ['a code that nobody has', '/v1/auth/device/token', { device_code: '0'.repeat(64) }],
  ])('is refused: %s', async (_, path, body) => {
    expect((await call(path, { body })).status).toBe(400)
  })

  it('is a code that nobody waits with, and guessing is bounded', async () => {
    const guesser = await newPerson()
    const look = (): Promise<Response> => call('/v1/auth/device/BBBBBBBB', { token: guesser.token })
    expect(await refusal(await look())).toEqual([404, 'not_found'])
    const statuses = new Set<number>()
    for (let guess = 0; guess < 40; guess++) statuses.add((await look()).status)
    expect(statuses).toEqual(new Set([404, 429]))
  })

  it('is one too many from one place', async () => {
    const place = newPlace()
    const answers: number[] = []
    for (let n = 0; n < 62; n++) answers.push((await call('/v1/auth/device', { body: { client: 'x' }, place })).status)
    expect(answers.slice(0, 60)).toEqual(Array.from({ length: 60 }, () => 201))
    expect(answers.slice(60)).toEqual([429, 429])
  })

  it('is approved by a key', async () => {
    const login = await begin()
    const answer = await platform.call('POST', `/v1/auth/device/${login.user_code}`, { approve: true })
    expect(await refusal(answer)).toEqual([403, 'forbidden'])
  })
})
