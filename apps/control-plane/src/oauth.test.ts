import type { Auth, NewUser, Provider } from '@wrenn/protocol'
import { freePort } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, startReplica } from './testing/harness.js'
import { codeIn, errorIn, loggerInto, newName, OauthWorld } from './testing/oauth-world.js'
import { refusal, type Tokens } from './testing/people.js'
import { WebClient } from './testing/web-client.js'

let world: OauthWorld

beforeAll(async () => {
  world = await OauthWorld.start()
}, 60_000)
afterAll(async () => {
  await world[Symbol.asyncDispose]()
})

describe('the providers', () => {
  it('are listed for everybody, with where a browser goes', async () => {
    const list = await json<Provider[]>(await fetch(`${world.platform.url}/v1/auth/providers`), 200)
    expect(list).toEqual([
      { id: 'github', name: 'GitHub', login_url: `${world.platform.url}/auth/oauth/github` },
      { id: 'acme', name: 'Acme Corp', login_url: `${world.platform.url}/auth/oauth/acme` },
      { id: 'other-one', name: 'Other-one', login_url: `${world.platform.url}/auth/oauth/other-one` },
    ])
  })

  it('that are not set are refused', async () => {
    expect(await refusal(await fetch(`${world.platform.url}/auth/oauth/nobody`))).toBe('404 provider_not_found')
    expect(await refusal(await fetch(`${world.platform.url}/auth/oauth/nobody/callback?code=1`))).toBe(
      '404 provider_not_found',
    )
    expect(await refusal(await fetch(`${world.platform.url}/auth/oauth/acme?intent=steal`))).toBe('400 invalid_request')
  })

  it('that do not answer keep nothing from starting, and lead to a page that says so', async () => {
    const gone = { ...world.env, WRENN_OIDC_ACME_ISSUER: `http://127.0.0.1:${await freePort()}` }
    await using replica = await startReplica(world.platform, gone)
    const response = await fetch(`${replica.url}/auth/oauth/acme?intent=signup&next=/device`, { redirect: 'manual' })
    expect(response.status).toBe(302)
    expect(response.headers.get('location')).toBe(
      `${world.platform.url}/signup?next=%2Fdevice&error=provider_unavailable&provider=acme`,
    )
  })
})

describe('a provider that was set up wrongly', () => {
  it('is told apart from one that is down, in the log', async () => {
    const wrong = {
      ...world.env,
      WRENN_OIDC_ACME_CLIENT_SECRET: 'another',
      WRENN_OAUTH_GITHUB_CLIENT_SECRET: 'another',
    }
    const logged: string[] = []
    await using replica = await startReplica(world.platform, wrong, loggerInto(logged))
    const come = async (callback: URL, client: WebClient): Promise<string> => {
      const headers = { cookie: await world.cookieOf(client) }
      const url = `${replica.url}${callback.pathname}${callback.search}`
      const response = await fetch(url, { redirect: 'manual', headers })
      return errorIn(new URL(response.headers.get('location') ?? ''))
    }
    const client = new WebClient()
    const { login } = world.atAcme()
    const acme = await world.throughPages(await world.begin('acme', { client }), login, client)
    expect(await come(acme, client)).toBe('/login exchange_failed')
    world.atGithub([])
    const github = await client.follow(await world.begin('github', { client }), world.github.url)
    expect(await come(github.url, client)).toBe('/login exchange_failed')
    expect(logged.filter((line) => line.includes('oauth.failed')).join()).toMatch(
      /"acme","error":"the provider answered 401.*"github","error":"[^"]*incorrect_client_credentials"/,
    )
  })
})

describe('a sign-in by OpenID Connect', () => {
  it('makes an account for who wants one, and finds it afterwards', async () => {
    const { login, email } = world.atAcme()
    const client = new WebClient()
    const page = await world.viaAcme('acme?intent=signup&next=/device', login, client)
    expect(page.href.replace(/=[0-9a-f]{64}$/, '=…')).toBe(`${world.platform.url}/auth/callback?next=%2Fdevice#code=…`)
    const made = await json<Tokens>(await world.exchange(page, client), 200)
    expect(await world.meOf(made)).toMatchObject({
      ...{ email, name: 'Grace', has_password: false, providers: ['acme'], is_admin: false, role: 'owner' },
    })
    const again = await world.signIn('acme', login)
    expect(again.user_id).toBe(made.user_id)
    // Who wants an account and has one is let in as well.
    expect((await world.signIn('acme?intent=signup', login)).user_id).toBe(made.user_id)
    const [signUps, logins] = [
      await world.entriesOf('user.sign_up', made),
      await world.entriesOf('session.login', made),
    ]
    expect(signUps.map(({ details }) => details)).toEqual([{ provider: 'acme' }])
    expect(logins.map(({ outcome, details }) => [outcome, details.provider])).toEqual(
      Array.from({ length: 3 }, () => ['success', 'acme']),
    )
  })

  it('knows people by their subject, whatever becomes of their address', async () => {
    const { login } = world.atAcme()
    const made = await world.signIn('acme?intent=signup', login)
    world.acme.people.set(login, { email: 'changed@acme.example', email_verified: false, name: 'Grace' })
    expect((await world.signIn('acme', login)).user_id).toBe(made.user_id)
  })

  it('never takes an account for somebody’s because of its address', async () => {
    const person = await world.newPerson()
    for (const intent of ['login', 'signup']) {
      const { login } = world.atAcme(true, person.email.toUpperCase())
      expect(errorIn(await world.viaAcme(`acme?intent=${intent}`, login))).toBe(`/${intent} email_taken`)
    }
    expect((await world.meOf(person)).providers).toEqual([])
    const failed = (await world.entriesOf('session.login', person)).filter(({ outcome }) => outcome === 'failure')
    expect(failed.map(({ details }) => details)).toEqual(
      Array.from({ length: 2 }, () => ({ provider: 'acme', error: 'email_taken' })),
    )
    // Nor one that is not activated, or disabled.
    for (const status of ['pending', 'disabled'] as const) {
      const email = `${newName()}@example.com`
      const { id } = await json<NewUser>(
        await world.platform.call('POST', '/v1/admin/users', { email, name: 'B' }),
        201,
      )
      await world.db.updateTable('users').set({ status }).where('id', '=', id).execute()
      expect(errorIn(await world.viaAcme('acme?intent=signup', world.atAcme(true, email).login))).toBe(
        '/signup email_taken',
      )
    }
  })

  it('makes one for an address that somebody else, or its owner, has signed up with and not proved', async () => {
    const email = `${newName()}@acme.example`
    const body = { email, password: 'a squatter’s password', name: 'Squatter' }
    expect((await world.platform.call('POST', '/v1/auth/signup', body)).status).toBe(201)
    await expect
      .poll(() => world.db.selectFrom('users').select('status').where('email', '=', email).execute())
      .toEqual([{ status: 'pending' }])
    const made = await world.signIn('acme?intent=signup', world.atAcme(true, email).login)
    expect(made.email).toBe(email)
    const user = await world.db.selectFrom('users').selectAll().where('email', '=', email).executeTakeFirstOrThrow()
    expect(user).toMatchObject({ id: made.user_id, status: 'active', password_hash: null })
    expect(await world.db.selectFrom('email_tokens').select('kind').where('user_id', '=', user.id).execute()).toEqual(
      [],
    )
  })

  it('makes no account with an address that the provider has not verified, and tells nothing of it', async () => {
    const person = await world.newPerson()
    for (const email of [person.email, `${newName()}@example.com`]) {
      const { login } = world.atAcme(false, email)
      expect(errorIn(await world.viaAcme('acme?intent=signup', login))).toBe('/signup email_unverified')
      expect(errorIn(await world.viaAcme('acme', login))).toBe('/login no_account')
    }
    const { login } = world.atAcme('false')
    expect(errorIn(await world.viaAcme('acme?intent=signup', login))).toBe('/signup email_unverified')
    world.acme.people.set(login, { name: 'Nobody' })
    expect(errorIn(await world.viaAcme('acme?intent=signup', login))).toBe('/signup email_unverified')
    // As some providers write it.
    const { login: another, email } = world.atAcme('true')
    expect((await world.signIn('acme?intent=signup', another)).email).toBe(email)
  })

  it('is refused to who was disabled, from the first moment on', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const made = await world.signIn('acme?intent=signup', login)
    const page = await world.viaAcme('acme', login, client)
    await json(await world.platform.call('PATCH', `/v1/admin/users/${made.user_id}`, { status: 'disabled' }), 200)
    expect(await refusal(await world.exchange(page, client))).toBe('403 account_disabled')
    expect(errorIn(await world.viaAcme('acme', login))).toBe('/login account_deactivated')
    expect(errorIn(await world.viaAcme('acme?intent=signup', login))).toBe('/signup account_deactivated')
  })

  it('tells who has deleted the account, and takes that back for them', async () => {
    const { login, email } = world.atAcme()
    const made = await world.signIn('acme?intent=signup', login)
    await world.deleteAccount(made)
    const client = new WebClient()
    const page = await world.viaAcme('acme', login, client)
    expect(await refusal(await world.exchange(page, client))).toBe('403 deletion_pending')
    const restored = await world.exchange(page, client, { body: { restore: true } })
    expect((await json<Tokens>(restored, 200)).user_id).toBe(made.user_id)
    await world.deleteAccount(await world.signIn('acme', login))
    await world.db.updateTable('users').set({ erase_at: sql<Date>`now()` }).where('email', '=', email).execute()
    const left = () => world.db.selectFrom('oauth_identities').selectAll().where('subject', '=', login).execute()
    await expect.poll(left).toEqual([])
    expect(errorIn(await world.viaAcme('acme', login))).toBe('/login no_account')
    expect((await world.signIn('acme?intent=signup', login)).user_id).not.toBe(made.user_id)
  })

  it('gives a page its cookies, and none to a page from elsewhere', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const page = await world.viaAcme('acme?intent=signup', login, client)
    const evil = { headers: { origin: 'https://evil.example' }, body: { cookies: true } }
    expect(await refusal(await world.exchange(page, client, evil))).toBe('403 forbidden')
    const response = await world.exchange(page, client, { body: { cookies: true } })
    const set = response.headers.getSetCookie().map((line) => line.split('=')[0])
    expect(set).toEqual(['wrenn_access', 'wrenn_refresh'])
    const answer = await json<Auth>(response, 200)
    expect([answer.token, answer.refresh_token]).toEqual([undefined, undefined])
  })

  it('goes through whichever control planes it meets', async () => {
    await using replica = await startReplica(world.platform, world.env)
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    const cookie = await world.cookieOf(client)
    const response = await fetch(`${replica.url}${callback.pathname}${callback.search}`, {
      redirect: 'manual',
      headers: { cookie },
    })
    const page = new URL(response.headers.get('location') ?? '')
    const body = JSON.stringify({ code: codeIn(page) })
    const headers = { 'content-type': 'application/json', 'x-wrenn-csrf': '1', cookie }
    const ask = (url: string) => fetch(`${url}/v1/auth/oauth/token`, { method: 'POST', headers, body })
    const all = await Promise.all([
      ask(world.platform.url),
      ask(replica.url),
      ask(world.platform.url),
      ask(replica.url),
    ])
    expect(all.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400])
  })
})

describe('a sign-in is bound', () => {
  it('to its browser, by a cookie that no script reads', async () => {
    const response = await fetch(`${world.platform.url}/auth/oauth/acme`, { redirect: 'manual' })
    expect(response.headers.getSetCookie().join()).toMatch(
      /^wrenn_oauth=[\w-]{43}; Max-Age=600; Path=\/; HttpOnly; SameSite=Lax$/,
    )
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    // Of who was sent here by somebody else, with or without a sign-in of their own.
    const victim = new WebClient()
    expect(errorIn(await world.comeBack(callback, victim))).toBe('/login invalid_state')
    await world.begin('acme', { client: victim })
    expect(errorIn(await world.comeBack(callback, victim))).toBe('/login invalid_state')
    const page = await world.comeBack(callback, client)
    expect(await refusal(await world.exchange(page, victim))).toBe('400 login_expired')
    expect(await refusal(await world.exchange(page, new WebClient()))).toBe('400 login_expired')
    expect((await world.exchange(page, client)).status).toBe(200)
  })

  it('to its state, which is good once', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    const wrong = new URL(callback)
    wrong.searchParams.set('state', 'x'.repeat(43))
    expect(errorIn(await world.comeBack(wrong, client))).toBe('/login invalid_state')
    wrong.searchParams.delete('state')
    expect(errorIn(await world.comeBack(wrong, client))).toBe('/login invalid_state')
    expect(codeIn(await world.comeBack(callback, client))).toMatch(/^[0-9a-f]{64}$/)
    expect(errorIn(await world.comeBack(callback, client))).toBe('/login invalid_state')
  })

  it('to ten minutes, and its code to one', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    const late = new Date(Date.now() - 1000)
    const flows = await world.db.selectFrom('oauth_flows').selectAll().execute()
    const left = Math.max(...flows.map(({ expires_at }) => expires_at.getTime() - Date.now()))
    expect(left).toBeGreaterThan(500_000)
    expect(left).toBeLessThanOrEqual(600_000)
    await world.db
      .updateTable('oauth_flows')
      .set({ expires_at: late as never })
      .execute()
    expect(errorIn(await world.comeBack(callback, client))).toBe('/login invalid_state')
    const page = await world.viaAcme('acme?intent=signup', login, client)
    const codes = await world.db.selectFrom('oauth_codes').selectAll().execute()
    expect(Math.max(...codes.map(({ expires_at }) => expires_at.getTime() - Date.now()))).toBeLessThanOrEqual(60_000)
    await world.db
      .updateTable('oauth_codes')
      .set({ expires_at: late as never })
      .execute()
    expect(await refusal(await world.exchange(page, client))).toBe('400 login_expired')
  })

  it('to one use of its code', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const page = await world.viaAcme('acme?intent=signup', login, client)
    const all = await Promise.all([1, 2, 3, 4].map(() => world.exchange(page, client)))
    expect(all.map(({ status }) => status).sort()).toEqual([200, 400, 400, 400])
    expect(await refusal(await world.exchange(page, client))).toBe('400 login_expired')
  })

  it('to its provider: an answer is taken at no world.other’s door, and of no world.other issuer', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    expect(callback.searchParams.get('iss')).toBe(world.acme.issuer)
    const moved = new URL(callback.href.replace('/acme/', '/other-one/'))
    expect(errorIn(await world.comeBack(moved, client))).toBe('/signup invalid_state')
    const mixed = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    mixed.searchParams.set('iss', world.other.issuer)
    expect(errorIn(await world.comeBack(mixed, client))).toBe('/signup exchange_failed')
    const bare = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    bare.searchParams.delete('iss')
    expect(errorIn(await world.comeBack(bare, client))).toBe('/signup exchange_failed')
  })

  it('to its nonce and its challenge', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const forged = await world.begin('acme?intent=signup', { client })
    forged.searchParams.set('nonce', 'somebody-elses')
    expect(errorIn(await world.comeBack(await world.throughPages(forged, login, client), client))).toBe(
      '/signup exchange_failed',
    )
    // A code of another sign-in that was never taken, as an attacker would slip it in.
    const stolen = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    const own = await world.throughPages(await world.begin('acme?intent=signup', { client }), login, client)
    own.searchParams.set('code', stolen.searchParams.get('code') ?? '')
    expect(errorIn(await world.comeBack(own, client))).toBe('/signup exchange_failed')
    expect(
      (await world.entriesOf('session.login')).filter(({ details }) => details.error === 'exchange_failed'),
    ).not.toEqual([])
  })

  it('to an answer that says something', async () => {
    const client = new WebClient()
    const state = (await world.begin('acme', { client })).searchParams.get('state')
    const callback = `${world.platform.url}/auth/oauth/acme/callback?iss=${encodeURIComponent(world.acme.issuer)}&state=`
    expect(errorIn(await world.comeBack(new URL(callback + state), client))).toBe('/login missing_code')
    const denied = (await world.begin('acme', { client })).searchParams.get('state')
    const no = new URL(`${callback}${denied}&error=access_denied`)
    expect(errorIn(await world.comeBack(no, client))).toBe('/login access_denied')
    const broken = (await world.begin('acme', { client })).searchParams.get('state')
    const sick = new URL(`${callback}${broken}&error=server_error`)
    expect(errorIn(await world.comeBack(sick, client))).toBe('/login provider_unavailable')
  })

  it('to a number of them from one place', async () => {
    const place = '10.9.8.7'
    for (let n = 0; n < 100; n++) expect((await world.begin('acme', { place })).origin).toBe(world.acme.issuer)
    expect(errorIn(await world.begin('acme', { place }))).toBe('/login limit_exceeded')
    expect((await world.begin('acme')).origin).toBe(world.acme.issuer)
  })

  it('to what is neither stored nor logged: state, code and what checks them', async () => {
    const { login } = world.atAcme()
    const client = new WebClient()
    const start = await world.begin('acme?intent=signup', { client })
    const page = await world.comeBack(await world.throughPages(start, login, client), client)
    await world.begin('acme', { client })
    const stored = JSON.stringify([
      await world.db.selectFrom('oauth_flows').selectAll().execute(),
      await world.db.selectFrom('oauth_codes').selectAll().execute(),
      world.logged,
      await world.entriesOf('session.login'),
    ])
    expect(world.logged.join()).toContain('oauth.failed')
    expect(stored).not.toContain(world.acme.clientSecret)
    const cookie = (await world.cookieOf(client)).split('=')[1]
    for (const secret of [start.searchParams.get('state'), start.searchParams.get('nonce'), codeIn(page), cookie]) {
      expect(secret?.length).toBeGreaterThan(40)
      expect(stored).not.toContain(secret)
    }
  })
})
