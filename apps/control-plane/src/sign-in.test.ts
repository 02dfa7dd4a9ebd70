import { randomBytes } from 'node:crypto'
import type { Auth, ErrorBody, Me, NewApiKey, NewUser, Session } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const PASSWORD = 'correct horse battery'

interface Tokens extends Auth {
  readonly token: string
  readonly refresh_token: string
}

let platform: Platform
let db: Db
let admin: Tokens

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1' } })
  db = openDatabase({ url: platform.databaseUrl })
  admin = await newPerson()
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const newPlace = (): string => [...randomBytes(3)].reduce((ip, byte) => `${ip}.${byte}`, '10')

function post(path: string, body: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(platform.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-forwarded-for': newPlace(), ...headers },
    body: JSON.stringify(body),
  })
}
const bearer = ({ token }: Tokens) => ({ authorization: `Bearer ${token}` })
const login = (email: string, password = PASSWORD) => post('/v1/auth/login', { email, password })
const meOf = (tokens: Tokens) => fetch(`${platform.url}/v1/me`, { headers: bearer(tokens) })

async function newPerson(): Promise<Tokens> {
  const email = `p${randomBytes(6).toString('hex')}@example.com`
  const made = await json<NewUser>(await platform.call('POST', '/v1/admin/users', { email, name: 'P' }), 201)
  const activation = { token: made.activation_token, password: PASSWORD }
  return await json<Tokens>(await post('/v1/auth/activate', activation), 200)
}

async function refusal(response: Response): Promise<string> {
  return `${response.status} ${(await json<ErrorBody>(response, response.status)).error.code}`
}

describe('a session', () => {
  it('that begins while the password changes ends with that change', async () => {
    const person = await newPerson()
    const change = { current_password: PASSWORD, new_password: 'another password' }
    const all = await Promise.all([
      ...Array.from({ length: 4 }, () => login(person.email)),
      post('/v1/me/password', change, bearer(person)),
      ...Array.from({ length: 4 }, () => login(person.email)),
    ])
    await Promise.all(all.map((response) => response.arrayBuffer()))
    const open = await db
      .selectFrom('sessions')
      .select('id')
      .where('user_id', '=', person.user_id)
      .where('revoked_at', 'is', null)
      .execute()
    expect(open).toEqual([{ id: person.session_id }])
  })

  it('ends when its person has a hundred that were used after it', async () => {
    const person = await newPerson()
    const [row] = await db.selectFrom('sessions').selectAll().where('id', '=', person.session_id).execute()
    if (row === undefined) throw new Error('no session')
    const many = Array.from({ length: 100 }, (_each, n) => {
      const { last_used_at: _, rotated_at: __, revoked_at: ___, ...rest } = row
      return { ...rest, id: `ses-${String(n).padStart(25, '0')}` }
    })
    await db.insertInto('sessions').values(many).execute()
    const latest = await json<Tokens>(await login(person.email), 200)
    expect(await refusal(await meOf(person))).toBe('401 unauthorized')
    const headers = bearer(latest)
    const listed = await json<Session[]>(await fetch(`${platform.url}/v1/auth/sessions`, { headers }), 200)
    expect(listed).toHaveLength(100)
  })

  it('whose person has left its team goes on in another of theirs', async () => {
    const person = await newPerson()
    const teamId = await createTeam(db, 'Another')
    await db.insertInto('team_members').values({ team_id: teamId, user_id: person.user_id, role: 'viewer' }).execute()
    await json(await post('/v1/auth/switch-team', { team_id: teamId }, bearer(person)), 200)
    expect(await json<Me>(await meOf(person), 200)).toMatchObject({ team_id: teamId, role: 'viewer' })
    await db.deleteFrom('team_members').where('team_id', '=', teamId).execute()
    const now = async () => await (await meOf(person)).json()
    await expect.poll(now).toMatchObject({ team_id: person.team_id, role: 'owner' })
    const next = await json<Tokens>(await post('/v1/auth/refresh', { refresh_token: person.refresh_token }), 200)
    expect(next.team_id).toBe(person.team_id)
  })

  it('cannot be guessed at without end', async () => {
    const place = { 'x-forwarded-for': newPlace() }
    const guess = () => post('/v1/auth/refresh', { refresh_token: 'wrr_wrong' }, place)
    const statuses: number[] = []
    for (let n = 0; n < 301; n++) statuses.push((await guess()).status)
    expect(statuses.filter((status) => status === 401)).toHaveLength(300)
    expect(statuses.at(-1)).toBe(429)
    const person = await newPerson()
    await json(await post('/v1/auth/refresh', { refresh_token: person.refresh_token }), 200)
  })

  it('that is over takes its cookies along', async () => {
    const page = { origin: platform.url, cookie: 'wrenn_access=wra_old; wrenn_refresh=wrr_old' }
    const response = await post('/v1/auth/refresh', {}, page)
    expect(response.status).toBe(401)
    expect(response.headers.getSetCookie().join()).toMatch(/wrenn_access=;.*wrenn_refresh=;/)
  })
})

describe('a key of a person', () => {
  it('may do nothing as the platform any more when they are demoted; others stay', async () => {
    const person = await newPerson()
    const change = (is_admin: boolean) =>
      platform.call('PATCH', `/v1/admin/users/${person.user_id}`, { is_admin }, bearerAsKey(admin))
    await json(await change(true), 200)
    const make = async (...scopes: string[]) =>
      await json<NewApiKey>(await post('/v1/api-keys', { scopes }, bearer(person)), 201)
    const [strong, plain] = [await make('platform', 'admin'), await make('read')]
    const list = (key: string) => fetch(`${platform.url}/v1/admin/users`, { headers: { 'x-api-key': key } })
    expect((await list(strong.key)).status).toBe(200)
    await json(await change(false), 200)
    expect(await refusal(await list(strong.key))).toBe('401 unauthorized')
    expect(await refusal(await list(plain.key))).toBe('403 forbidden')
  })

  it('counts on a WebSocket that asks for it, whatever cookies come along', async () => {
    const { id } = await platform.create()
    const path = `/v1/capsules/${id}/pty`
    const socket = platform.open(`${path}?auth=message`, { key: undefined, cookie: 'wrenn_access=wra_somebody_elses' })
    await socket.send({ type: 'auth', api_key: platform.key })
    await socket.send({ type: 'start' })
    expect((await socket.frame())?.code).not.toBe('unauthorized')
    const byCookie = platform.open(path, { key: undefined, cookie: 'wrenn_access=wra_somebody_elses' })
    await expect(byCookie.opened()).rejects.toThrow('401')
  })
})

describe('a person', () => {
  it('owns as many teams as one may, however many are asked for at once', async () => {
    const person = await newPerson()
    const all = await Promise.all(
      Array.from({ length: 14 }, (_, n) => post('/v1/teams', { name: `Team ${n}` }, bearer(person))),
    )
    // One is theirs already.
    expect(all.filter(({ status }) => status === 201)).toHaveLength(9)
    expect(all.filter(({ status }) => status === 429)).toHaveLength(5)
  })
})

const bearerAsKey = (tokens: Tokens) => ({ 'x-api-key': tokens.token })
