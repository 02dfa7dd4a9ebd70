import type {
  AuditPage,
  Factors,
  NewPasskeyInfo,
  PasskeyAssertion,
  PasskeyOptions,
  SecondFactorNeeded,
} from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { Authenticator } from './testing/authenticator.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { newPlace, PASSWORD, People, refusal, type Tokens } from './testing/people.js'

const origin = 'https://wrenn.example:8443'
const env = {
  WRENN_TRUSTED_PROXIES: '127.0.0.1,::1',
  WRENN_ENCRYPTION_KEY: 'ab'.repeat(32),
  WRENN_PUBLIC_URL: `${origin}/below/`,
}

let platform: Platform
let replica: ControlPlane
let db: Db
let people: People

beforeAll(async () => {
  platform = await startPlatform({ env })
  replica = await startReplica(platform, env)
  db = openDatabase({ url: platform.databaseUrl })
  people = new People(platform)
  await people.add('Ada')
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const options = async (path: string, more: Parameters<People['call']>[1] = {}) =>
  await json<PasskeyOptions>(await people.call(path, { body: {}, ...more }), 200)

async function register({ token }: Tokens, key: Authenticator, name = 'My key'): Promise<NewPasskeyInfo> {
  const asked = await options('/v1/me/factors/passkeys/options', { token })
  const body = { name, credential: key.create(asked) }
  return await json<NewPasskeyInfo>(await people.call('/v1/me/factors/passkeys', { token, body }), 201)
}
async function addOwner(more: { counts?: boolean } = {}) {
  const person = await people.add()
  const key = new Authenticator({ origin, ...more })
  return { person, key, passkey: await register(person, key) }
}
const logIn = (passkey: PasskeyAssertion, url = platform.url) =>
  people.call('/v1/auth/passkey', { body: { passkey }, url })
const askLogin = () => options('/v1/auth/passkey/options')
const factorsOf = async ({ token }: Tokens) => await json<Factors>(await people.call('/v1/me/factors', { token }), 200)

async function begin({ email }: Tokens, place: string) {
  const body = { email, password: PASSWORD }
  const half = await json<SecondFactorNeeded>(await people.call('/v1/auth/login', { body, place }), 200)
  return half.second_factor
}
const finish = (token: string, passkey: PasskeyAssertion, place: string) =>
  people.call('/v1/auth/second-factor', { body: { token, passkey }, place })
const askSecond = (token: string, place: string) =>
  options('/v1/auth/second-factor/passkey', { body: { token }, place })

describe('a passkey', () => {
  it('is made for the host of the public URL and for one person, and comes with recovery codes', async () => {
    const person = await people.add()
    const other = await json<Tokens>(await people.login(person.email), 200)
    const key = new Authenticator({ origin })
    const asked = await options('/v1/me/factors/passkeys/options', { token: person.token })
    expect(asked).toMatchObject({ rp: { id: 'wrenn.example', name: 'Wrenn' }, user: { name: person.email } })
    const credential = key.create(asked)
    const add = (token: string) =>
      people.call('/v1/me/factors/passkeys', { token, body: { name: ' My key ', credential } })
    // Of another session than the one that asked, it is not the answer to anything.
    expect(await refusal(await add((await people.add()).token))).toBe('400 invalid_request')
    const made = await json<NewPasskeyInfo>(await add(person.token), 201)
    expect(await refusal(await add(person.token))).toBe('400 invalid_request')
    expect(made).toMatchObject({ id: expect.stringMatching(/^pk-/), name: 'My key', synced: false })
    expect(made.recovery_codes).toHaveLength(10)
    await expect.poll(() => people.statusOf(other.token, replica.url)).toBe(401)
    expect(await people.statusOf(person.token)).toBe(200)
    const again = await options('/v1/me/factors/passkeys/options', { token: person.token })
    expect(again).toMatchObject({ excludeCredentials: [{ id: credential.id }] })
    const second = await register(person, new Authenticator({ origin }), 'Another')
    expect(second.recovery_codes).toBeUndefined()
    expect((await factorsOf(person)).passkeys.map(({ name }) => name)).toEqual(['My key', 'Another'])
  })

  it('is not taken twice, not from another page, and not for another challenge', async () => {
    const { person, key } = await addOwner()
    const body = async (credential: object) => ({ token: person.token, body: { name: 'x', credential } })
    const add = async (credential: object) =>
      await refusal(await people.call('/v1/me/factors/passkeys', await body(credential)))
    const ask = () => options('/v1/me/factors/passkeys/options', { token: person.token })
    expect(await add(key.create(await ask()))).toBe('409 conflict')
    expect(await add(new Authenticator({ origin: 'https://evil.example' }).create(await ask()))).toBe(
      '400 invalid_request',
    )
    const stale = { ...(await ask()), challenge: 'AAAA' }
    expect(await add(new Authenticator({ origin }).create(stale))).toBe('400 invalid_request')
    expect(await add({ id: 'x' })).toBe('400 invalid_request')
  })

  it('logs in without a password, once for each challenge, where it has made sure that its owner is there', async () => {
    const { person, key } = await addOwner()
    const asked = await askLogin()
    expect(asked).toMatchObject({ rpId: 'wrenn.example', userVerification: 'required' })
    expect(asked).not.toHaveProperty('allowCredentials.0')
    const assertion = key.sign(asked)
    const opened = await json<Tokens>(await logIn(assertion), 200)
    expect(opened.user_id).toBe(person.user_id)
    expect((await factorsOf(person)).passkeys[0]?.last_used).toMatch(/^2/)
    expect(await refusal(await logIn(assertion))).toBe('401 unauthorized')
    expect(await refusal(await logIn(key.sign(await askLogin(), { verified: false })))).toBe('401 unauthorized')
    expect(await refusal(await logIn(key.sign(await askLogin(), { origin: 'https://evil.example' })))).toBe(
      '401 unauthorized',
    )
    expect(await refusal(await logIn(new Authenticator({ origin }).sign(await askLogin())))).toBe('401 unauthorized')
    const { items } = await json<AuditPage>(
      await people.call('/v1/audit-logs?outcome=failure', { token: opened.token }),
      200,
    )
    expect(items.map(({ action, details }) => [action, details.method])).toEqual(
      Array.from({ length: 3 }, () => ['session.login', 'passkey']),
    )
  })

  it('lets in one of two who bring one signature at once to two control planes', async () => {
    const { key } = await addOwner()
    const assertion = key.sign(await askLogin())
    const answers = await Promise.all([logIn(assertion), logIn(assertion, replica.url)])
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401])
  })

  it('that counts is refused when its count has gone back: there are two of it', async () => {
    const { key } = await addOwner({ counts: true })
    expect((await logIn(key.sign(await askLogin()))).status).toBe(200)
    expect((await logIn(key.sign(await askLogin()))).status).toBe(200)
    key.counter = 0
    expect(await refusal(await logIn(key.sign(await askLogin())))).toBe('401 unauthorized')
  })

  it('ends a login with a password, also one that makes sure of nobody; that of somebody else does not', async () => {
    const [{ person, key }, stranger] = [await addOwner(), await addOwner()]
    const place = newPlace()
    const half = await begin(person, place)
    expect(half.methods).toEqual(['passkey', 'recovery_code'])
    expect(await refusal(await finish(half.token, key.sign(await askLogin()), place))).toBe('401 unauthorized')
    const theirs = stranger.key.sign(await askSecond(half.token, place))
    expect(await refusal(await finish(half.token, theirs, place))).toBe('401 unauthorized')
    const asked = await askSecond(half.token, place)
    expect(asked).toMatchObject({ allowCredentials: [{ id: expect.any(String) }] })
    const other = await begin(person, place)
    const signed = key.sign(asked, { verified: false })
    expect(await refusal(await finish(other.token, signed, place))).toBe('401 unauthorized')
    const again = key.sign(await askSecond(half.token, place), { verified: false })
    expect((await finish(half.token, again, place)).status).toBe(200)
    const elsewhere = await people.call('/v1/auth/second-factor/passkey', { body: { token: other.token } })
    expect(await refusal(elsewhere)).toBe('400 login_expired')
  })

  it('proves anew who somebody is', async () => {
    const { person, key } = await addOwner()
    await sql`UPDATE sessions SET confirmed_at = 'epoch' WHERE user_id = ${person.user_id}`.execute(db)
    const { token } = person
    const ask = () => options('/v1/auth/confirm/passkey', { token })
    const confirm = (passkey: object) => people.call('/v1/auth/confirm', { token, body: { passkey } })
    const codes = () => people.call('/v1/me/factors/recovery-codes', { token, body: {} })
    expect(await refusal(await confirm(key.sign(await ask(), { verified: false })))).toBe('400 wrong_code')
    expect(await refusal(await confirm(key.sign(await askLogin())))).toBe('400 wrong_code')
    const guessed = db.selectFrom('audit_log').select('outcome').where('action', '=', 'session.confirm')
    expect(await guessed.where('resource_id', '=', person.user_id).execute()).toEqual([
      { outcome: 'failure' },
      { outcome: 'failure' },
    ])
    expect(await refusal(await codes())).toBe('403 confirmation_needed')
    expect((await confirm(key.sign(await ask()))).status).toBe(204)
    expect((await codes()).status).toBe(200)
    const { token: plain } = await people.add()
    expect(await refusal(await people.call('/v1/auth/confirm/passkey', { token: plain, body: {} }))).toBe(
      '409 conflict',
    )
  })

  it('is refused, and nothing worse, when what a browser would never send is in it', async () => {
    const person = await people.add()
    const send = async (change: (response: { clientDataJSON: string }) => object) => {
      const asked = await options('/v1/me/factors/passkeys/options', { token: person.token })
      const credential = new Authenticator({ origin }).create(asked)
      const body = { name: 'k', credential: { ...credential, response: change(credential.response) } }
      return await refusal(await people.call('/v1/me/factors/passkeys', { token: person.token, body }))
    }
    for (const challenge of [5, undefined, null, {}]) {
      const data = Buffer.from(JSON.stringify({ type: 'webauthn.create', origin, challenge })).toString('base64url')
      expect(await send((response) => ({ ...response, clientDataJSON: data }))).toBe('400 invalid_request')
    }
    for (const transports of ['usb', [5], ['\u0000'], Array.from({ length: 11 }, () => 'usb')]) {
      expect(await send((response) => ({ ...response, transports }))).toBe('400 invalid_request')
    }
  })

  it('is renamed and removed by its owner alone', async () => {
    const [{ person, key, passkey }, stranger] = [await addOwner(), await people.add()]
    const change = (token: string, method: string, body?: object) =>
      people.call(`/v1/me/factors/passkeys/${passkey.id}`, { token, method, ...(body === undefined ? {} : { body }) })
    expect(await refusal(await change(stranger.token, 'PATCH', { name: 'Mine' }))).toBe('404 not_found')
    expect(await refusal(await change(stranger.token, 'DELETE'))).toBe('404 not_found')
    expect((await change(person.token, 'PATCH', { name: 'Desk' })).status).toBe(200)
    expect((await factorsOf(person)).passkeys.map(({ name }) => name)).toEqual(['Desk'])
    expect((await change(person.token, 'DELETE')).status).toBe(204)
    expect(await factorsOf(person)).toEqual({ passkeys: [], recovery_codes_left: 0 })
    expect(await refusal(await logIn(key.sign(await askLogin())))).toBe('401 unauthorized')
    expect((await people.login(person.email)).status).toBe(200)
  })

  it('does not help when the account was disabled, or is to be deleted', async () => {
    const [{ person, key }, deleted] = [await addOwner(), await addOwner()]
    await platform.call('PATCH', `/v1/admin/users/${person.user_id}`, { status: 'disabled' })
    expect(await refusal(await logIn(key.sign(await askLogin())))).toBe('403 account_disabled')
    const { token, email } = deleted.person
    await people.call('/v1/me', { method: 'DELETE', token, body: { confirmation: email } })
    expect(await refusal(await logIn(deleted.key.sign(await askLogin())))).toBe('403 deletion_pending')
    const passkey = deleted.key.sign(await askLogin())
    expect((await people.call('/v1/auth/passkey', { body: { passkey, restore: true } })).status).toBe(200)
  })

  it('needs a platform that is reached by a name; this machine is one', async () => {
    const at = async (url: string) => {
      await using other = await startReplica(platform, { ...env, WRENN_PUBLIC_URL: url })
      return await people.call('/v1/auth/passkey/options', { body: {}, url: other.url })
    }
    expect(await refusal(await at('http://10.0.0.7:8000'))).toBe('501 not_supported')
    expect(await json<PasskeyOptions>(await at('http://127.0.0.1:8000'), 200)).toMatchObject({ rpId: 'localhost' })
  })
})
