import { waitFor } from '@wrenn/base'
import type {
  AuditPage,
  Auth,
  Capsule,
  ErrorBody,
  Invitation,
  ListedTeam,
  MemberOfTeam,
  NewApiKey,
  NewUser,
  Role,
  Team,
  TeamDetails,
} from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { pruneInvitations } from './store/invitations.js'
import { addMember } from './store/members.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { linkIn, TestSmtp } from './testing/smtp.js'

let smtp: TestSmtp
let platform: Platform
let replica: ControlPlane
let db: Db
let count = 0

beforeAll(async () => {
  smtp = await TestSmtp.start({ disabledCommands: ['AUTH', 'STARTTLS'] })
  platform = await startPlatform({
    env: {
      WRENN_SMTP_URL: smtp.url,
      WRENN_MAIL_FROM: 'Wrenn <wrenn@wrenn.example>',
      WRENN_PUBLIC_URL: 'https://wrenn.example',
    },
  })
  replica = await startReplica(platform)
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
  await smtp[Symbol.asyncDispose]()
})

/** Somebody with an account, who works in a team. */
interface Somebody {
  readonly id: string
  readonly email: string
  readonly teamId: string
  readonly as: (method: string, path: string, body?: unknown, url?: string) => Promise<Response>
}

function caller(token: string): Somebody['as'] {
  return (method, path, body, url = platform.url) =>
    fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
}

async function somebody(name: string): Promise<Somebody> {
  const email = `${name}.${++count}@example.org`
  const made = await json<NewUser>(await platform.call('POST', '/v1/admin/users', { email, name }), 201)
  const activation = { token: made.activation_token, password: 'correct horse battery staple' }
  const auth = await json<Auth>(await platform.call('POST', '/v1/auth/activate', activation), 200)
  return { id: auth.user_id, email, teamId: auth.team_id, as: caller(auth.token ?? '') }
}

/** Somebody in the team of another, working there. */
async function colleague(owner: Somebody, role: Exclude<Role, 'owner'>): Promise<Somebody> {
  const person = await somebody(role)
  await addMember(db, owner.teamId, person.id, role)
  const auth = await json<Auth>(await person.as('POST', '/v1/auth/switch-team', { team_id: owner.teamId }), 200)
  return { ...person, teamId: owner.teamId, as: auth.token === undefined ? person.as : caller(auth.token) }
}

async function refusal(response: Response): Promise<[number, string]> {
  const { error } = await json<ErrorBody>(response, response.status)
  return [response.status, error.code]
}

const membersOf = async ({ as, teamId }: Somebody) =>
  await json<MemberOfTeam[]>(await as('GET', `/v1/teams/${teamId}/members`), 200)

async function actionsIn({ as }: Somebody): Promise<string[]> {
  const { items } = await json<AuditPage>(await as('GET', '/v1/audit-logs?limit=200'), 200)
  return items.map(({ action, actor_type }) => `${action} ${actor_type}`)
}

/** The code of the last mail to somebody. */
async function codeFor(email: string, after = 0): Promise<string> {
  const mail = await waitFor(async () => smtp.mails.filter(({ to }) => to.includes(email))[after], {
    timeoutMs: 20_000,
    what: `mail ${after} to ${email}`,
  })
  const link = linkIn(mail)
  expect(link.origin + link.pathname).toBe('https://wrenn.example/invitation')
  return new URLSearchParams(link.hash.slice(1)).get('token') ?? ''
}

let owner: Somebody

beforeEach(async () => {
  owner = await somebody('owner')
}, 60_000)

describe('a team', () => {
  it('is made by somebody, who owns it, and has a name of its own for URLs', async () => {
    const made = await json<Team>(await owner.as('POST', '/v1/teams', { name: "Ada's data-science" }), 201)
    expect(made).toMatchObject({ name: "Ada's data-science", role: 'owner', is_byoc: false })
    expect(made.slug).toMatch(/^[0-9a-f]{6}-[0-9a-f]{6}$/)
    const listed = await json<ListedTeam[]>(await owner.as('GET', '/v1/teams'), 200)
    expect(listed.map(({ id, role, current }) => [id, role, current])).toEqual([
      [owner.teamId, 'owner', true],
      [made.id, 'owner', false],
    ])
    for (const name of ['', ' ', 'http://evil.example', 'a/b', 'a.b', 'x'.repeat(129), 'a\nb']) {
      expect(await refusal(await owner.as('POST', '/v1/teams', { name }))).toEqual([400, 'invalid_request'])
    }
    expect(await refusal(await platform.call('POST', '/v1/teams', { name: 'By a key' }))).toEqual([403, 'forbidden'])
  })

  it('is renamed, which the trail tells', async () => {
    const path = `/v1/teams/${owner.teamId}`
    expect((await owner.as('PATCH', path, { name: 'New name' })).status).toBe(204)
    const { team, members } = await json<TeamDetails>(await owner.as('GET', path), 200)
    expect([team.name, members.map(({ role }) => role)]).toEqual(['New name', ['owner']])
    expect(await actionsIn(owner)).toContain('team.rename user')
  })

  it('of others is not there, on any route', async () => {
    const stranger = await somebody('stranger')
    const { paths } = await json<{ paths: Record<string, Record<string, unknown>> }>(
      await platform.call('GET', '/openapi.json'),
      200,
    )
    const bodies: Record<string, unknown> = {
      'PATCH /v1/teams/{id}': { name: 'Mine' },
      'POST /v1/teams/{id}/transfer': { user_id: stranger.id },
      'POST /v1/teams/{id}/members': { email: 'a@example.org' },
      'POST /v1/teams/{id}/invitations': { email: 'a@example.org' },
      'PATCH /v1/teams/{id}/members/{user_id}': { role: 'admin' },
    }
    let looked = 0
    for (const [path, methods] of Object.entries(paths)) {
      if (!path.startsWith('/v1/teams/{id}')) continue
      for (const method of Object.keys(methods).map((word) => word.toUpperCase())) {
        for (const id of [owner.teamId, `team-${'1'.repeat(25)}`]) {
          const url = path
            .replace('{id}', id)
            .replace('{user_id}', owner.id)
            .replace('{invitation_id}', `inv-${'1'.repeat(25)}`)
          const answer = await refusal(await stranger.as(method, url, bodies[`${method} ${path}`]))
          expect([method, path, ...answer]).toEqual([method, path, 404, 'team_not_found'])
          looked++
        }
      }
    }
    expect(looked).toBeGreaterThan(20)
  })

  it('that is deleted loses its people and keys everywhere at once, and its capsules soon after', async () => {
    const member = await colleague(owner, 'member')
    const { key } = await json<NewApiKey>(await owner.as('POST', '/v1/api-keys', { scopes: ['capsules'] }), 201)
    const capsule = await json<Capsule>(await owner.as('POST', '/v1/capsules', {}), 201)
    const withKey = (url: string) => fetch(`${url}/v1/capsules`, { headers: { 'x-api-key': key } })
    expect((await withKey(replica.url)).status).toBe(200)
    expect(await refusal(await member.as('DELETE', `/v1/teams/${owner.teamId}`))).toEqual([403, 'forbidden'])
    expect((await owner.as('DELETE', `/v1/teams/${owner.teamId}`)).status).toBe(204)
    expect((await withKey(platform.url)).status).toBe(401)
    await expect.poll(async () => (await withKey(replica.url)).status).toBe(401)
    const path = `/v1/capsules/${capsule.id}`
    for (const person of [owner, member]) {
      await expect.poll(async () => (await person.as('GET', path, undefined, replica.url)).ok).toBe(false)
    }
    const stateOf = async () =>
      (await db.selectFrom('capsules').select('state').where('id', '=', capsule.id).executeTakeFirst())?.state
    await expect.poll(stateOf).toBe('stopped')
    const swept = () => db.selectFrom('teams').select('swept_at').where('id', '=', owner.teamId).executeTakeFirst()
    await expect.poll(async () => (await swept())?.swept_at).toBeInstanceOf(Date)
    const operations = await db.selectFrom('operations').selectAll().where('capsule_id', '=', capsule.id).execute()
    expect(operations.map(({ kind }) => kind)).toContain('destroy')
  })
})

describe('an invitation', () => {
  const invite = (email: string, role = 'member', by = owner) =>
    by.as('POST', `/v1/teams/${by.teamId}/invitations`, { email, role })

  it('goes by mail and lets in the very account that it was sent to, once', async () => {
    const ada = await somebody('ada')
    const bob = await somebody('bob')
    const made = await json<Invitation>(await invite(ada.email.toUpperCase(), 'viewer'), 201)
    expect(made).toMatchObject({ email: ada.email, role: 'viewer', times_sent: 1 })
    const token = await codeFor(ada.email)
    // The server has it a moment before the row goes.
    const waiting = () => db.selectFrom('mails').selectAll().where('recipient', '=', ada.email).execute()
    await expect.poll(waiting).toEqual([])
    expect(JSON.stringify(await db.selectFrom('invitations').selectAll().execute())).not.toContain(token)
    expect(await refusal(await bob.as('POST', '/v1/invitations/accept', { token }))).toEqual([403, 'forbidden'])
    const joined = await json<Team>(await ada.as('POST', '/v1/invitations/accept', { token }), 200)
    expect(joined).toMatchObject({ id: owner.teamId, role: 'viewer' })
    expect(await refusal(await ada.as('POST', '/v1/invitations/accept', { token }))).toEqual([400, 'invalid_token'])
    expect((await membersOf(owner)).map(({ email, role }) => [email, role])).toEqual([
      [owner.email, 'owner'],
      [ada.email, 'viewer'],
    ])
    expect(await actionsIn(owner)).toEqual(expect.arrayContaining(['invitation.create user', 'invitation.accept user']))
  })

  it('answers the same whether or not somebody has the address, and refuses who is in already', async () => {
    const known = await somebody('known')
    const shapes = []
    for (const email of [known.email, `nobody.${++count}@example.org`]) {
      const {
        id,
        email: _,
        created_at,
        sent_at,
        expires_at,
        ...rest
      } = await json<Invitation>(await invite(email), 201)
      shapes.push(rest)
    }
    expect(shapes[0]).toEqual(shapes[1])
    expect(await refusal(await invite(known.email))).toEqual([409, 'conflict'])
    expect(await refusal(await invite(owner.email))).toEqual([409, 'conflict'])
    for (const email of ['a@b, c@d', 'a', 'A <a@b>']) expect((await invite(email)).status).toBe(400)
    expect((await invite('x@example.org', 'owner')).status).toBe(400)
  })

  it('that is sent again has another link, five times at most; revoked, it has none', async () => {
    const ada = await somebody('ada')
    const { id } = await json<Invitation>(await invite(ada.email), 201)
    const path = `/v1/teams/${owner.teamId}/invitations/${id}`
    const first = await codeFor(ada.email)
    for (let sent = 2; sent <= 5; sent++) {
      expect(await json<Invitation>(await owner.as('POST', `${path}/resend`), 200)).toMatchObject({ times_sent: sent })
    }
    expect(await refusal(await owner.as('POST', `${path}/resend`))).toEqual([429, 'limit_exceeded'])
    expect(await refusal(await ada.as('POST', '/v1/invitations/accept', { token: first }))).toEqual([
      400,
      'invalid_token',
    ])
    await codeFor(ada.email, 4)
    for (let times = 0; times < 2; times++) expect((await owner.as('DELETE', path)).status).toBe(204)
    const codes = await Promise.all([0, 1, 2, 3, 4].map((after) => codeFor(ada.email, after)))
    for (const token of codes) expect((await ada.as('POST', '/v1/invitations/accept', { token })).status).toBe(400)
    expect(await json<Invitation[]>(await owner.as('GET', `/v1/teams/${owner.teamId}/invitations`), 200)).toEqual([])
  })

  it('is good only while whoever sent it may invite, until somebody else sends it again', async () => {
    const admin = await somebody('admin')
    await addMember(db, owner.teamId, admin.id, 'admin')
    await json<object>(await admin.as('POST', '/v1/auth/switch-team', { team_id: owner.teamId }), 200)
    const other = await somebody('other')
    const { id } = await json<Invitation>(await invite(other.email, 'admin', { ...admin, teamId: owner.teamId }), 201)
    expect((await owner.as('DELETE', `/v1/teams/${owner.teamId}/members/${admin.id}`)).status).toBe(204)
    const accept = async (sent: number) =>
      await other.as('POST', '/v1/invitations/accept', { token: await codeFor(other.email, sent) })
    expect(await refusal(await accept(0))).toEqual([400, 'invalid_token'])
    await json<Invitation>(await owner.as('POST', `/v1/teams/${owner.teamId}/invitations/${id}/resend`), 200)
    expect((await accept(1)).status).toBe(200)
  })

  it('ends with its time', async () => {
    const ada = await somebody('ada')
    const { id } = await json<Invitation>(await invite(ada.email), 201)
    const token = await codeFor(ada.email)
    await db
      .updateTable('invitations')
      .set({ expires_at: new Date(0) })
      .where('id', '=', id)
      .execute()
    expect(await refusal(await ada.as('POST', '/v1/invitations/accept', { token }))).toEqual([400, 'invalid_token'])
    await pruneInvitations(db)
    expect(await db.selectFrom('invitations').select('id').where('id', '=', id).execute()).toEqual([])
  })
})

describe('people of a team', () => {
  it('have one owner, always', async () => {
    const admin = await colleague(owner, 'admin')
    const path = `/v1/teams/${owner.teamId}/members/${owner.id}`
    for (const [method, url, body] of [
      ['PATCH', path, { role: 'viewer' }],
      ['DELETE', path, undefined],
    ] as const) {
      expect(await refusal(await admin.as(method, url, body))).toEqual([409, 'conflict'])
    }
    expect(await refusal(await owner.as('POST', `/v1/teams/${owner.teamId}/leave`))).toEqual([409, 'conflict'])
    const hand = (by: Somebody, to: string) => by.as('POST', `/v1/teams/${owner.teamId}/transfer`, { user_id: to })
    expect(await refusal(await hand(admin, admin.id))).toEqual([403, 'forbidden'])
    const stranger = await somebody('stranger')
    expect(await refusal(await hand(owner, stranger.id))).toEqual([404, 'member_not_found'])
    const status = async (of: Somebody, to: 'active' | 'disabled') =>
      await db.updateTable('users').set({ status: to }).where('id', '=', of.id).execute()
    await status(admin, 'disabled')
    expect(await refusal(await hand(owner, admin.id))).toEqual([409, 'conflict'])
    await status(admin, 'active')
    expect((await hand(owner, admin.id)).status).toBe(204)
    expect((await membersOf(admin)).map(({ role }) => role)).toEqual(['admin', 'owner'])
    await expect.poll(async () => (await owner.as('POST', `/v1/teams/${owner.teamId}/leave`)).status).toBe(204)
    expect(await actionsIn(admin)).toEqual(expect.arrayContaining(['team.transfer user', 'member.leave user']))
  })

  it('who are removed lose the team and the keys that they made there, on every control plane', async () => {
    const member = await colleague(owner, 'member')
    const make = async (by: Somebody) =>
      await json<NewApiKey>(await by.as('POST', '/v1/api-keys', { scopes: ['read'] }), 201)
    const [gone, kept] = [await make(member), await make(owner)]
    const statusOf = async (key: string, url: string) =>
      (await fetch(`${url}/v1/capsules`, { headers: { 'x-api-key': key } })).status
    expect([await statusOf(gone.key, replica.url), await statusOf(kept.key, replica.url)]).toEqual([200, 200])
    expect((await member.as('GET', '/v1/capsules', undefined, replica.url)).status).toBe(200)
    expect((await owner.as('DELETE', `/v1/teams/${owner.teamId}/members/${member.id}`)).status).toBe(204)
    expect(await statusOf(gone.key, platform.url)).toBe(401)
    await expect.poll(() => statusOf(gone.key, replica.url)).toBe(401)
    const path = `/v1/teams/${owner.teamId}/members`
    await expect.poll(async () => (await member.as('GET', path, undefined, replica.url)).ok).toBe(false)
    expect(await statusOf(kept.key, replica.url)).toBe(200)
  })

  it('with a lesser role lose the keys that may do more, and no others', async () => {
    const admin = await colleague(owner, 'admin')
    const make = async (scope: string) =>
      await json<NewApiKey>(await admin.as('POST', '/v1/api-keys', { scopes: [scope] }), 201)
    const [reading, using] = [await make('read'), await make('capsules')]
    const role = { role: 'viewer' }
    expect((await owner.as('PATCH', `/v1/teams/${owner.teamId}/members/${admin.id}`, role)).status).toBe(204)
    const statusOf = async (key: string) =>
      (await fetch(`${platform.url}/v1/capsules`, { headers: { 'x-api-key': key } })).status
    expect([await statusOf(reading.key), await statusOf(using.key)]).toEqual([200, 401])
    await expect.poll(async () => (await admin.as('POST', '/v1/capsules', {})).status).toBe(403)
  })

  it('revoke keys of their own; those of others do who manages them', async () => {
    const member = await colleague(owner, 'member')
    const make = async (by: Somebody) =>
      await json<NewApiKey>(await by.as('POST', '/v1/api-keys', { scopes: ['read'] }), 201)
    const [own, others] = [await make(member), await make(owner)]
    expect(own.created_by).toBe(member.id)
    expect(await refusal(await member.as('DELETE', `/v1/api-keys/${others.id}`))).toEqual([403, 'forbidden'])
    expect((await member.as('DELETE', `/v1/api-keys/${own.id}`)).status).toBe(204)
    const again = await make(member)
    expect((await owner.as('DELETE', `/v1/api-keys/${again.id}`)).status).toBe(204)
  })

  it('find those of their teams, and nobody else', async () => {
    const member = await colleague(owner, 'viewer')
    const stranger = await somebody('stranger')
    const find = async (by: Somebody, { email }: Somebody) =>
      await json<unknown>(await by.as('GET', `/v1/users/search?email=${encodeURIComponent(email.slice(0, -4))}`), 200)
    expect(await find(owner, member)).toEqual([{ user_id: member.id, email: member.email }])
    expect(await find(owner, stranger)).toEqual([])
    expect(await find(stranger, owner)).toEqual([])
    expect((await owner.as('GET', '/v1/users/search?email=%25@%25')).status).toBe(200)
    expect((await owner.as('GET', '/v1/users/search?email=ab')).status).toBe(400)
  })
})
