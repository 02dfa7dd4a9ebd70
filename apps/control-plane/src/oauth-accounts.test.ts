import type { Me, NewPasskeyInfo, PasskeyOptions, SecondFactorNeeded } from '@wrenn/protocol'
import { freePort } from '@wrenn/testkit'
import { sql } from 'kysely'
import { URI } from 'otpauth'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Authenticator } from './testing/authenticator.js'
import { json, startPlatform, startReplica } from './testing/harness.js'
import { bearer, errorIn, mail, newName, OauthWorld } from './testing/oauth-world.js'
import { PASSWORD, refusal, type Tokens } from './testing/people.js'
import { WebClient } from './testing/web-client.js'

let world: OauthWorld

beforeAll(async () => {
  world = await OauthWorld.start()
}, 60_000)
afterAll(async () => {
  await world[Symbol.asyncDispose]()
})
beforeEach(() => {
  world.github.person = undefined
  world.github.error = undefined
  world.github.emailsStatus = 200
})

describe('a sign-in by GitHub', () => {
  it('takes the primary address, also where it is private, and the number of the account', async () => {
    const address = mail()
    const id = world.atGithub([mail(true, false), address, mail(false, false)], null)
    const client = new WebClient()
    const made = await json<Tokens>(
      await world.exchange(await world.viaGithub('github?intent=signup', { client }), client),
      200,
    )
    expect(await world.meOf(made)).toMatchObject({ email: address.email, name: `octo-${id}`, providers: ['github'] })
    // The name of an account there may come to be another's.
    world.github.person = { id, login: 'renamed', name: null, emails: [] }
    const again = new WebClient()
    const opened = await json<Tokens>(
      await world.exchange(await world.viaGithub('github', { client: again }), again),
      200,
    )
    expect(opened.user_id).toBe(made.user_id)
  })

  it('makes no account without a primary address that is verified', async () => {
    for (const emails of [[], [mail(false)], [mail(false), mail(true, false)]]) {
      world.atGithub(emails)
      expect(errorIn(await world.viaGithub('github?intent=signup'))).toBe('/signup email_unverified')
    }
    world.atGithub([mail()])
    world.github.emailsStatus = 404
    expect(errorIn(await world.viaGithub('github?intent=signup'))).toBe('/signup email_unverified')
  })

  it('says what GitHub says', async () => {
    world.atGithub([mail()])
    world.github.error = 'access_denied'
    expect(errorIn(await world.viaGithub('github'))).toBe('/login access_denied')
    world.github.error = 'application_suspended'
    expect(errorIn(await world.viaGithub('github'))).toBe('/login exchange_failed')
    world.github.error = undefined
    world.github.emailsStatus = 502
    expect(errorIn(await world.viaGithub('github'))).toBe('/login provider_unavailable')
    world.github.emailsStatus = 200
    expect(errorIn(await world.viaGithub('github'))).toBe('/login no_account')
    // An error of GitHub has the status 200.
    const client = new WebClient()
    const { url } = await client.follow(await world.begin('github', { client }), world.github.url)
    url.searchParams.set('code', 'another')
    expect(errorIn(await world.comeBack(url, client))).toBe('/login exchange_failed')
  })
})

describe('an account', () => {
  it('with a second factor is asked for it after the provider too', async () => {
    const { login } = world.atAcme()
    const person = await world.signIn('acme?intent=signup', login)
    const call = (path: string, body: object, headers: object = bearer(person)) =>
      fetch(world.platform.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      })
    const { uri } = await json<{ uri: string }>(await call('/v1/me/factors/totp', {}), 201)
    const totp = URI.parse(uri)
    const code = 'period' in totp ? totp.generate() : ''
    const { recovery_codes: codes } = await json<{ recovery_codes: string[] }>(
      await call('/v1/me/factors/totp/confirm', { code }),
      200,
    )
    const place = { 'x-forwarded-for': '10.77.0.1' }
    const client = new WebClient()
    const page = await world.viaAcme('acme', login, client)
    const exchanged = await world.exchange(page, client, { headers: place })
    expect(exchanged.headers.getSetCookie().join()).not.toContain('wrenn_access')
    const { second_factor: half } = await json<SecondFactorNeeded>(exchanged, 200)
    expect(half.methods).toEqual(['totp', 'recovery_code'])
    const finish = (recovery_code: string | undefined) =>
      call('/v1/auth/second-factor', { token: half.token, recovery_code }, place)
    expect(await refusal(await finish('not a code'))).toBe('401 unauthorized')
    const opened = await json<Tokens>(await finish(codes[0]), 200)
    expect(opened.user_id).toBe(person.user_id)
    const logins = await world.entriesOf('session.login', opened)
    expect(logins[0]?.details).toEqual({ provider: 'acme' })
  })

  it('is connected by its person alone, and signs in by the provider from then on', async () => {
    const person = await world.newPerson()
    const { login } = world.atAcme(false)
    expect((await world.link(person, login)).href).toBe(`${world.platform.url}/dashboard/settings?connected=acme`)
    expect(await world.meOf(person)).toMatchObject({ has_password: true, providers: ['acme'] })
    expect((await world.signIn('acme', login)).user_id).toBe(person.user_id)
    // Once more is no error.
    expect((await world.link(person, login)).search).toBe('?connected=acme')
    const entries = await world.entriesOf('user.connect_provider', person)
    expect(entries.map(({ details, actor_id }) => [details, actor_id])).toEqual([
      [{ provider: 'acme' }, person.user_id],
    ])
  })

  it('is connected and disconnected with a mail to its person', async () => {
    const person = await world.newPerson()
    const { login } = world.atAcme()
    for (let n = 0; n < 2; n++) await world.link(person, login)
    expect((await world.disconnect(person, 'acme')).status).toBe(204)
    const mails = await world.db
      .selectFrom('mails')
      .select(['kind', 'data'])
      .where('recipient', '=', person.email)
      .orderBy('created_at')
      .execute()
    expect(mails.map(({ kind, data }) => [kind, data?.what])).toEqual([
      ['sign-in-changed', 'your account was connected with Acme Corp'],
      ['sign-in-changed', 'your account was disconnected from Acme Corp'],
    ])
  })

  it('is not connected with who is somebody else’s, nor with two of one provider', async () => {
    const [one, two] = [await world.newPerson(), await world.newPerson()]
    const { login } = world.atAcme()
    await world.link(one, login)
    expect((await world.link(two, login)).search).toBe('?connect_error=already_linked&provider=acme')
    expect((await world.link(one, world.atAcme().login)).search).toBe('?connect_error=already_linked&provider=acme')
    expect([(await world.meOf(one)).providers, (await world.meOf(two)).providers]).toEqual([['acme'], []])
  })

  it('is not connected by a session that is over, or in another browser', async () => {
    const person = await world.newPerson()
    const { login } = world.atAcme()
    const client = new WebClient()
    const callback = await world.throughPages(await world.connect(person, client), login, client)
    // Somebody who was lured here with an attacker's link.
    expect(errorIn(await world.comeBack(callback, new WebClient()))).toBe('/login invalid_state')
    await fetch(`${world.platform.url}/v1/auth/logout`, { method: 'POST', headers: bearer(person) })
    expect((await world.comeBack(callback, client)).search).toBe('?connect_error=invalid_state&provider=acme')
    expect(await world.db.selectFrom('oauth_identities').selectAll().where('subject', '=', login).execute()).toEqual([])
    const path = `${world.platform.url}/v1/me/providers/acme/connect`
    expect(await refusal(await fetch(path, { method: 'POST' }))).toBe('401 unauthorized')
    const headers = { 'x-api-key': world.platform.key }
    expect(await refusal(await fetch(path, { method: 'POST', headers }))).toBe('403 forbidden')
  })

  it('is connected, and gets its first password, by who has just proved that it is theirs', async () => {
    const { login } = world.atAcme()
    const person = await world.signIn('acme?intent=signup', login)
    await world.db
      .updateTable('sessions')
      .set({ confirmed_at: sql<Date>`now() - interval '11 minutes'` })
      .where('id', '=', person.session_id)
      .execute()
    const ask = (path: string, body?: object) =>
      fetch(`${world.platform.url}/v1/me/${path}`, {
        method: 'POST',
        headers: { ...bearer(person), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
    const chosen = { new_password: PASSWORD, confirm_password: PASSWORD }
    const [connect, first] = [
      await refusal(await ask('providers/github/connect')),
      await refusal(await ask('password', chosen)),
    ]
    expect(connect).toMatch(/^\d+ confirmation_needed$/)
    expect(first).toBe(connect)
    expect((await world.meOf(person)).has_password).toBe(false)
  })

  it('is connected at the public address alone, where its provider leads back to', async () => {
    const person = await world.newPerson()
    const headers = { ...bearer(person), origin: world.platform.url.replace('127.0.0.1', 'localhost') }
    const response = await fetch(`${world.platform.url}/v1/me/providers/acme/connect`, { method: 'POST', headers })
    expect(await refusal(response)).toBe('400 invalid_request')
  })

  it('keeps one way to sign in', async () => {
    const { login } = world.atAcme()
    const person = await world.signIn('acme?intent=signup', login)
    expect(await refusal(await world.disconnect(person, 'github'))).toBe('404 provider_not_found')
    expect(await refusal(await world.disconnect(person, 'acme'))).toBe('400 last_login_method')
    // A provider that is not set any more is no way in.
    const key = { provider: 'gone', issuer: 'https://gone.example', subject: login, user_id: person.user_id }
    await world.db.insertInto('oauth_identities').values(key).execute()
    expect(await refusal(await world.disconnect(person, 'acme'))).toBe('400 last_login_method')
    expect((await world.disconnect(person, 'gone')).status).toBe(204)
    world.atGithub([mail()])
    const client = new WebClient()
    const { url } = await client.follow(await world.connect(person, client, 'github'), world.github.url)
    await world.comeBack(url, client)
    // Of two at once one stays.
    const both = await Promise.all([world.disconnect(person, 'acme'), world.disconnect(person, 'github')])
    expect(both.map(({ status }) => status).sort()).toEqual([204, 400])
    expect((await world.meOf(person)).providers).toHaveLength(1)
    expect(await world.entriesOf('user.disconnect_provider', person)).toHaveLength(2)
  })

  it('may be disconnected by who has a passkey, which is a way to sign in and stays then', async () => {
    const person = await world.signIn('acme?intent=signup', world.atAcme().login)
    const call = (path: string, method: string, body?: object) =>
      fetch(world.platform.url + path, {
        method,
        headers: { ...bearer(person), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
    const origin = new URL(world.env.WRENN_PUBLIC_URL ?? '').origin.replace('127.0.0.1', 'localhost')
    const add = async (transports: string[]): Promise<NewPasskeyInfo> => {
      const asked = await json<PasskeyOptions>(await call('/v1/me/factors/passkeys/options', 'POST', {}), 200)
      const made = new Authenticator({ origin }).create(asked)
      const credential = { ...made, response: { ...made.response, transports } }
      const added = await call('/v1/me/factors/passkeys', 'POST', { name: 'Desk', credential })
      return await json<NewPasskeyInfo>(added, 201)
    }
    // A key to plug in may have no way to make sure of its owner, and is asked for after a password then.
    await add(['usb'])
    expect(await refusal(await world.disconnect(person, 'acme'))).toBe('400 last_login_method')
    const passkey = await add(['internal'])
    expect((await world.disconnect(person, 'acme')).status).toBe(204)
    const removal = () => call(`/v1/me/factors/passkeys/${passkey.id}`, 'DELETE')
    expect(await refusal(await removal())).toBe('400 last_login_method')
    const password = { new_password: PASSWORD, confirm_password: PASSWORD }
    expect((await call('/v1/me/password', 'POST', password)).status).toBe(204)
    expect((await removal()).status).toBe(204)
  })

  it('that was disconnected is no way in, also for a sign-in that was under way', async () => {
    const person = await world.newPerson()
    const { login } = world.atAcme()
    await world.link(person, login)
    const client = new WebClient()
    const page = await world.viaAcme('acme', login, client)
    expect((await world.disconnect(person, 'acme')).status).toBe(204)
    expect(await refusal(await world.exchange(page, client))).toBe('400 login_expired')
    expect(errorIn(await world.viaAcme('acme', login))).toBe('/login no_account')
  })

  it('without a password gets one from its person, who says it twice', async () => {
    const { login, email } = world.atAcme()
    const person = await world.signIn('acme?intent=signup', login)
    const change = (body: object) =>
      fetch(`${world.platform.url}/v1/me/password`, {
        method: 'POST',
        headers: { ...bearer(person), 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    const chosen = { new_password: PASSWORD, confirm_password: PASSWORD }
    expect(await refusal(await change({ new_password: PASSWORD }))).toBe('400 invalid_request')
    expect(await refusal(await change({ ...chosen, confirm_password: 'another one' }))).toBe('400 invalid_request')
    expect(await refusal(await world.platform.call('POST', '/v1/auth/login', { email, password: PASSWORD }))).toBe(
      '401 unauthorized',
    )
    const both = await Promise.all([change(chosen), change(chosen)])
    expect(both.map(({ status }) => status).sort()).toEqual([204, 401])
    expect(await world.meOf(person)).toMatchObject({ has_password: true })
    await json(await world.platform.call('POST', '/v1/auth/login', { email, password: PASSWORD }), 200)
    // From now on it is needed.
    expect(await refusal(await change(chosen))).toBe('401 wrong_password')
    expect((await world.disconnect(person, 'acme')).status).toBe(204)
  })
})

describe('a sign-up by a provider', () => {
  it('makes the first account where there is none, and obeys WRENN_SIGNUP after that', async () => {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const closed = { ...world.env, WRENN_SIGNUP: 'closed', WRENN_PORT: String(port), WRENN_PUBLIC_URL: url }
    await using first = await startPlatform({ databaseUrl: world.databaseServer, env: closed })
    const visit = async (): Promise<[URL, WebClient]> => {
      const client = new WebClient()
      return [await world.viaGithub('github?intent=signup', { client, at: first }), client]
    }
    const address = mail()
    world.atGithub([address])
    const [page, client] = await visit()
    const headers = bearer(await json<Tokens>(await world.exchange(page, client), 200))
    const me = await json<Me>(await fetch(`${url}/v1/me`, { headers }), 200)
    expect(me).toMatchObject({ email: address.email, is_admin: true, role: 'owner' })
    world.atGithub([mail()])
    expect(errorIn((await visit())[0])).toBe('/signup signup_closed')
    const setUp = { code: '0'.repeat(64), email: 'eve@example.com', name: 'Eve', password: PASSWORD }
    expect(await refusal(await first.call('POST', '/v1/auth/setup', setUp))).toBe('409 conflict')
  })

  it('is for the domains that may sign up', async () => {
    await using replica = await startReplica(world.platform, { ...world.env, WRENN_SIGNUP: 'acme.example' })
    const come = async (email: string): Promise<string> => {
      world.atGithub([mail(true, true, email)])
      const client = new WebClient()
      const { url } = await client.follow(await world.begin('github?intent=signup', { client }), world.github.url)
      const headers = { cookie: await world.cookieOf(client) }
      const callback = `${replica.url}${url.pathname}${url.search}`
      const response = await fetch(callback, { redirect: 'manual', headers })
      return new URL(response.headers.get('location') ?? '').pathname
    }
    expect(await come(`${newName()}@acme.example`)).toBe('/auth/callback')
    expect(await come(`${newName()}@not-acme.example`)).toBe('/signup')
  })
})
