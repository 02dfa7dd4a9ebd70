import type {
  AnyTeam,
  AuditEntry,
  AuditPage,
  DeviceLogin,
  ErrorBody,
  Invitation,
  ListedTeam,
  NewApiKey,
  Session,
  Team,
} from '@wrenn/protocol'
import { testPostgresKinds } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { json, startReplica } from './testing/harness.js'
import { codeIn, OauthWorld } from './testing/oauth-world.js'
import { newPlace, PASSWORD, People, refusal, type Tokens } from './testing/people.js'
import { decodeText, linkIn, TestSmtp } from './testing/smtp.js'
import { WebClient } from './testing/web-client.js'

/** Two control planes on one database, asked as clients ask them and in no other way. */
describe.each(testPostgresKinds())('two control planes on $name', ({ start }) => {
  let smtp: TestSmtp
  let world: OauthWorld
  let replica: ControlPlane
  let people: People
  let here: string
  let there: string

  beforeAll(async () => {
    smtp = await TestSmtp.start({ disabledCommands: ['AUTH', 'STARTTLS'] })
    const mail = { WRENN_SMTP_URL: smtp.url, WRENN_MAIL_FROM: 'Wrenn <wrenn@wrenn.example>' }
    world = await OauthWorld.start({ startPostgres: start, env: mail })
    replica = await startReplica(world.platform, world.env)
    people = new People(world.platform)
    here = world.platform.url
    there = replica.url
  }, 120_000)
  afterAll(async () => {
    await replica[Symbol.asyncDispose]()
    await world[Symbol.asyncDispose]()
    await smtp[Symbol.asyncDispose]()
  }, 60_000)

  const withKey = (key: string, path: string, url: string, more: Parameters<People['call']>[1] = {}) =>
    people.call(path, { ...more, url, headers: { 'x-api-key': key } })
  const keyOf = async ({ token }: Tokens, url: string, scopes = ['read', 'capsules']) =>
    await json<NewApiKey>(await people.call('/v1/api-keys', { token, url, body: { scopes } }), 201)
  const statusOf = async (answer: Promise<Response>): Promise<number> => {
    const response = await answer
    await response.arrayBuffer()
    return response.status
  }
  const asAdmin = (method: string, path: string, url: string, body?: object) =>
    withKey(world.platform.key, path, url, { method, ...(body === undefined ? {} : { body }) })
  const confirm = ({ token }: Tokens, url: string) =>
    people.call('/v1/auth/confirm', { token, url, body: { password: PASSWORD } })

  /** What the link of a mail carries. */
  async function codeMailedTo(address: string, path: string): Promise<string> {
    const found = () => smtp.mails.find(({ to, raw }) => to.includes(address) && decodeText(raw).includes(`${path}#`))
    await expect.poll(found).toBeDefined()
    const mail = found()
    if (mail === undefined) throw new Error(`no mail to ${address}`)
    return new URLSearchParams(linkIn(mail).hash.slice(1)).get('token') ?? 'none'
  }

  /** Somebody in the team of an owner, who has accepted at the other control plane. */
  async function invited(owner: Tokens, role: string): Promise<Tokens> {
    const person = await people.add('Invited')
    const path = `/v1/teams/${owner.team_id}/invitations`
    const body = { email: person.email, role }
    await json<Invitation>(await people.call(path, { token: owner.token, body, url: here }), 201)
    const token = await codeMailedTo(person.email, '/invitation')
    const accept = { token: person.token, body: { token }, url: there }
    expect((await json<Team>(await people.call('/v1/invitations/accept', accept), 200)).id).toBe(owner.team_id)
    const move = { token: person.token, body: { team_id: owner.team_id }, url: there }
    return { ...person, ...(await json<Tokens>(await people.call('/v1/auth/switch-team', move), 200)) }
  }

  it('know a session that was begun at one, and that it was ended at the other', async () => {
    const { email } = await people.add()
    const session = await json<Tokens>(await people.login(email, {}, here), 200)
    const second = await json<Tokens>(await people.login(email, {}, there), 200)
    for (const url of [here, there]) {
      expect([await people.statusOf(session.token, url), await people.statusOf(second.token, url)]).toEqual([200, 200])
    }
    const listed = await json<Session[]>(
      await people.call('/v1/auth/sessions', { token: second.token, url: there }),
      200,
    )
    expect(listed.map(({ id }) => id)).toContain(session.session_id)
    const end = { method: 'DELETE', token: second.token, url: there }
    expect(await statusOf(people.call(`/v1/auth/sessions/${session.session_id}`, end))).toBe(204)
    expect(await people.statusOf(session.token, there)).toBe(401)
    await expect.poll(() => people.statusOf(session.token, here)).toBe(401)
    const refresh = { body: { refresh_token: session.refresh_token }, url: here }
    expect(await refusal(await people.call('/v1/auth/refresh', refresh))).toBe('401 unauthorized')
    expect(await people.statusOf(second.token, here)).toBe(200)
  })

  it('end the sessions and keys of somebody whom the other has disabled', async () => {
    const person = await people.add()
    const { key } = await keyOf(person, there)
    expect([await people.statusOf(person.token, there), await statusOf(withKey(key, '/v1/capsules', there))]).toEqual([
      200, 200,
    ])
    const change = { status: 'disabled' }
    expect(await statusOf(asAdmin('PATCH', `/v1/admin/users/${person.user_id}`, here, change))).toBe(200)
    await expect.poll(() => people.statusOf(person.token, there)).not.toBe(200)
    await expect.poll(() => statusOf(withKey(key, '/v1/capsules', there))).toBe(401)
  })

  it('refuse a key that was revoked at the other', async () => {
    const owner = await people.add()
    const made = await keyOf(owner, here)
    for (const url of [here, there]) expect(await statusOf(withKey(made.key, '/v1/capsules', url))).toBe(200)
    const revoke = { method: 'DELETE', token: owner.token, url: there }
    expect(await statusOf(people.call(`/v1/api-keys/${made.id}`, revoke))).toBe(204)
    expect(await statusOf(withKey(made.key, '/v1/capsules', there))).toBe(401)
    await expect.poll(() => statusOf(withKey(made.key, '/v1/capsules', here))).toBe(401)
  })

  it('let somebody in by an invitation of the other, and go by the role that the other gives', async () => {
    const owner = await people.add('Owner')
    const member = await invited(owner, 'member')
    const create = (url: string) => people.call('/v1/capsules', { token: member.token, body: {}, url })
    for (const url of [here, there]) await expect.poll(() => statusOf(create(url))).toBe(201)
    const role = { method: 'PATCH', token: owner.token, body: { role: 'viewer' }, url: here }
    expect(await statusOf(people.call(`/v1/teams/${owner.team_id}/members/${member.user_id}`, role))).toBeLessThan(300)
    expect(await refusal(await create(here))).toBe('403 forbidden')
    await expect.poll(() => statusOf(create(there))).toBe(403)
    expect(await statusOf(people.call('/v1/capsules', { token: member.token, url: there }))).toBe(200)
    const remove = { method: 'DELETE', token: owner.token, url: there }
    expect(await statusOf(people.call(`/v1/teams/${owner.team_id}/members/${member.user_id}`, remove))).toBeLessThan(
      300,
    )
    // Their session goes on in a team of their own.
    const team = () => people.call(`/v1/teams/${owner.team_id}`, { token: member.token, url: here })
    await expect.poll(() => statusOf(team())).toBe(404)
  })

  it('keep together to the limits of a plan', async () => {
    const owner = await people.add()
    const plan = `plan-${owner.user_id.slice(-12)}`
    expect(await statusOf(asAdmin('PUT', `/v1/admin/plans/${plan}`, here, { running_capsules: 2 }))).toBeLessThan(300)
    const given = await asAdmin('PATCH', `/v1/admin/teams/${owner.team_id}/quota`, there, { plan })
    expect((await json<AnyTeam>(given, 200)).plan).toBe(plan)
    const create = (url: string) => people.call('/v1/capsules', { token: owner.token, body: {}, url })
    const all = await Promise.all([here, there, here, there, here].map((url) => create(url)))
    const answers = await Promise.all(all.map(async (answer) => [answer.status, await answer.json()] as const))
    expect(answers.map(([status]) => status).sort()).toEqual([201, 201, 429, 429, 429])
    const refused = answers.filter(([status]) => status === 429).map(([, body]) => (body as ErrorBody).error)
    for (const { details } of refused) expect(details).toMatchObject({ limit: 'running', max: 2 })
  })

  it('count wrong logins together, and lock out the place and not the person', async () => {
    const { email } = await people.add()
    const place = newPlace()
    const guess = (url: string) => people.call('/v1/auth/login', { body: { email, password: 'wrong' }, place, url })
    for (let n = 0; n < 10; n++) expect(await statusOf(guess(n % 2 === 0 ? here : there))).toBe(401)
    for (const url of [here, there]) {
      const right = await people.call('/v1/auth/login', { body: { email, password: PASSWORD }, place, url })
      expect(Number(right.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(await refusal(right)).toBe('429 limit_exceeded')
      expect(await statusOf(people.login(email, {}, url))).toBe(200)
    }
  })

  it('end a sign-in by a provider that was begun at the other', async () => {
    const { login, email } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    const cookie = await world.cookieOf(client)
    const back = await fetch(`${there}${callback.pathname}${callback.search}`, {
      redirect: 'manual',
      headers: { cookie },
    })
    await back.arrayBuffer()
    const page = new URL(back.headers.get('location') ?? '')
    const body = JSON.stringify({ code: codeIn(page) })
    const headers = { 'content-type': 'application/json', 'x-wrenn-csrf': '1', cookie }
    const exchange = (url: string) => fetch(`${url}/v1/auth/oauth/token`, { method: 'POST', headers, body })
    const session = await json<Tokens>(await exchange(here), 200)
    expect(session.email).toBe(email)
    expect(await people.statusOf(session.token, there)).toBe(200)
    expect(await statusOf(exchange(there))).toBe(400)
  })

  it('let a program in that began at one and was approved at the other, and take a proof of either', async () => {
    const person = await people.add()
    const begun = await json<DeviceLogin>(
      await people.call('/v1/auth/device', { body: { client: 'a test' }, url: here }),
      201,
    )
    const ask = (url: string) => people.call('/v1/auth/device/token', { body: { device_code: begun.device_code }, url })
    expect(await statusOf(ask(here))).toBe(202)
    const approval = { token: person.token, body: { approve: true }, url: there }
    expect(await statusOf(people.call(`/v1/auth/device/${begun.user_code}`, approval))).toBe(204)
    const program = await json<Tokens>(await ask(here), 200)
    expect(program.email).toBe(person.email)
    expect(await statusOf(ask(there))).toBeGreaterThanOrEqual(400)
    // It has not proved who it is.
    const addFactor = (url: string) =>
      people.call('/v1/me/factors/totp', { method: 'POST', token: program.token, body: {}, url })
    for (const url of [here, there]) expect(await refusal(await addFactor(url))).toBe('403 confirmation_needed')
    expect(await statusOf(confirm(program, there))).toBe(204)
    expect(await statusOf(addFactor(here))).toBe(201)
  })

  it('write one trail, whose chain has no gap and no fork', async () => {
    const owner = await people.add()
    for (const url of [here, there, here, there]) await keyOf(owner, url)
    const [team] = await json<ListedTeam[]>(await people.call('/v1/teams', { token: owner.token, url: there }), 200)
    expect(team?.id).toBe(owner.team_id)
    const { token } = owner
    const page = await json<AuditPage>(
      await people.call('/v1/audit-logs?action=api_key.create', { token, url: there }),
      200,
    )
    expect(page.items).toHaveLength(4)
    const lines = (await (await people.call('/v1/audit-logs/export', { token, url: here })).text())
      .trimEnd()
      .split('\n')
    const trail = lines.map((line): AuditEntry => JSON.parse(line))
    expect(trail.filter(({ action }) => action === 'api_key.create')).toHaveLength(4)
    expect(trail.map(({ seq }) => seq)).toEqual(trail.map((_, index) => index + 1))
    expect(trail.slice(1).map((entry) => entry.prev_hash)).toEqual(trail.slice(0, -1).map(({ hash }) => hash))
  })
})
