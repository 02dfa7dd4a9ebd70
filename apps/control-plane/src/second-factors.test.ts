import type { AuditPage, ErrorBody, Factors, SecondFactorNeeded } from '@wrenn/protocol'
import { sql } from 'kysely'
import { URI } from 'otpauth'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { newPlace, PASSWORD, People, refusal, type Tokens } from './testing/people.js'

const STEP_MS = 30_000
const env = { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1', WRENN_ENCRYPTION_KEY: 'ab'.repeat(32) }

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

interface Protected {
  readonly person: Tokens
  readonly secret: string
  readonly recoveryCodes: string[]
  /** Of the app, so many steps from now. */
  readonly code: (steps?: number) => string
}

const post = (path: string, token: string, body: object = {}) => people.call(path, { token, body })
const factorsOf = async ({ token }: Tokens) => await json<Factors>(await people.call('/v1/me/factors', { token }), 200)

function codeOf(uri: string, steps: number): string {
  const totp = URI.parse(uri)
  if (!('period' in totp)) throw new Error('a code that counts')
  return totp.generate({ timestamp: Date.now() + steps * STEP_MS })
}

/** Somebody with an authenticator app, whose codes of now are all good. */
async function addProtected(): Promise<Protected> {
  const person = await people.add()
  const { secret, uri } = await json<{ secret: string; uri: string }>(
    await post('/v1/me/factors/totp', person.token),
    201,
  )
  const code = (steps = 0): string => codeOf(uri, steps)
  const confirmed = await post('/v1/me/factors/totp/confirm', person.token, { code: code() })
  const { recovery_codes: recoveryCodes } = await json<{ recovery_codes: string[] }>(confirmed, 200)
  await forgetSteps(person)
  return { person, secret, recoveryCodes, code }
}

const forgetSteps = ({ user_id }: Tokens) =>
  db.updateTable('totp_factors').set({ last_step: 0 }).where('user_id', '=', user_id).execute()

/** The first half of a login. */
async function begin(
  { email }: Tokens,
  place: string,
  more: object = {},
): Promise<SecondFactorNeeded['second_factor']> {
  const body = { email, password: PASSWORD, ...more }
  const response = await people.call('/v1/auth/login', { body, place })
  expect(response.headers.getSetCookie()).toEqual([])
  return (await json<SecondFactorNeeded>(response, 200)).second_factor
}
const finish = (token: string, proof: object, place: string, url = platform.url) =>
  people.call('/v1/auth/second-factor', { body: { token, ...proof }, place, url })

/** A whole login with a proof. */
async function login(person: Tokens, proof: object): Promise<Response> {
  const place = newPlace()
  return await finish((await begin(person, place)).token, proof, place)
}
const sessionsOf = ({ user_id }: Tokens) =>
  db.selectFrom('sessions').select('id').where('user_id', '=', user_id).where('revoked_at', 'is', null).execute()
const mailsTo = async ({ email }: Tokens) => {
  const mails = await db
    .selectFrom('mails')
    .select('data')
    .where('recipient', '=', email)
    .orderBy('created_at')
    .execute()
  return mails.map(({ data }) => data?.what)
}
const actionsOf = async ({ token }: Tokens) => {
  const { items } = await json<AuditPage>(await people.call('/v1/audit-logs?limit=200', { token }), 200)
  return items.map(({ action, outcome, details }) => `${action} ${outcome} ${details.method ?? ''}`.trim())
}

describe('an authenticator app', () => {
  it('counts once a code of it was given, comes with recovery codes, and ends all other sessions', async () => {
    const person = await people.add()
    const other = await json<Tokens>(await people.login(person.email), 200)
    const { secret, uri } = await json<{ secret: string; uri: string }>(
      await post('/v1/me/factors/totp', person.token),
      201,
    )
    expect((await people.login(person.email)).status).toBe(200)
    expect(await factorsOf(person)).toEqual({ passkeys: [], recovery_codes_left: 0 })
    const confirm = (code: string) => post('/v1/me/factors/totp/confirm', person.token, { code })
    expect(await refusal(await confirm(codeOf(uri, 5)))).toBe('400 wrong_code')
    expect(await refusal(await confirm('12345'))).toBe('400 invalid_request')
    const code = codeOf(uri, 0)
    const { recovery_codes: codes } = await json<{ recovery_codes: string[] }>(
      await confirm(`${code.slice(0, 3)} ${code.slice(3)}`),
      200,
    )
    expect(new Set(codes).size).toBe(10)
    expect(await factorsOf(person)).toMatchObject({ totp_since: expect.stringMatching(/^2/), recovery_codes_left: 10 })
    for (const url of [platform.url, replica.url]) await expect.poll(() => people.statusOf(other.token, url)).toBe(401)
    expect(await people.statusOf(person.token)).toBe(200)
    expect(await mailsTo(person)).toEqual(['an authenticator app was added'])
    expect(await refusal(await confirm(codeOf(uri, 0)))).toBe('409 conflict')
    expect(await refusal(await post('/v1/me/factors/totp', person.token))).toBe('409 conflict')
    const stored = JSON.stringify([
      await db.selectFrom('totp_factors').selectAll().execute(),
      await db.selectFrom('recovery_codes').selectAll().execute(),
    ])
    for (const plain of [secret, ...codes]) expect(stored).not.toContain(plain)
  })

  it('is asked for after the password, which gives no session, and each code is good once', async () => {
    const { person, code } = await addProtected()
    const before = await sessionsOf(person)
    const place = newPlace()
    const { token, methods } = await begin(person, place, { cookies: false })
    expect(methods).toEqual(['totp', 'recovery_code'])
    expect(await sessionsOf(person)).toEqual(before)
    expect(await people.statusOf(token)).toBe(401)
    const now = code()
    const opened = await json<Tokens>(await finish(token, { code: now }, place), 200)
    expect(await people.statusOf(opened.token)).toBe(200)
    expect(await refusal(await finish(token, { code: code(1) }, place))).toBe('400 login_expired')
    expect(await refusal(await login(person, { code: now }))).toBe('401 unauthorized')
    expect(await refusal(await login(person, { code: code(-1) }))).toBe('401 unauthorized')
    expect((await login(person, { code: code(1) })).status).toBe(200)
    expect(await refusal(await login(person, { code: code(1) }))).toBe('401 unauthorized')
    expect(await refusal(await login(person, { code: code(3) }))).toBe('401 unauthorized')
  })

  it('gives pages their cookies at the end, and only to pages of this host', async () => {
    const { person, code } = await addProtected()
    const place = newPlace()
    const page = { origin: platform.url }
    const body = { email: person.email, password: PASSWORD, cookies: true }
    const half = await people.call('/v1/auth/login', { body, place, headers: page })
    expect(half.headers.getSetCookie()).toEqual([])
    const { token } = (await json<SecondFactorNeeded>(half, 200)).second_factor
    const end = (headers: Record<string, string>) =>
      people.call('/v1/auth/second-factor', { body: { token, code: code(), cookies: true }, place, headers })
    expect(await refusal(await end({ origin: 'https://evil.example' }))).toBe('403 forbidden')
    const whole = await end(page)
    expect(whole.headers.getSetCookie()).toHaveLength(2)
    expect(await whole.text()).not.toMatch(/wr[ar]_/)
  })

  it('lets in one of two who use one token at once, whichever control plane they ask, and takes no code of the other', async () => {
    const { person, recoveryCodes } = await addProtected()
    for (const round of [0, 1, 2]) {
      const place = newPlace()
      const { token } = await begin(person, place)
      const codes = recoveryCodes.slice(round * 2, round * 2 + 2)
      const [one, other] = await Promise.all(
        codes.map((recovery_code, n) => finish(token, { recovery_code }, place, n === 0 ? platform.url : replica.url)),
      )
      expect([one?.status, other?.status].sort()).toEqual([200, 400])
      expect((await factorsOf(person)).recovery_codes_left).toBe(9 - round)
    }
  })

  it('lets in one of two who use one code at once', async () => {
    const { person, code } = await addProtected()
    const places = [newPlace(), newPlace()]
    const tokens = await Promise.all(places.map(async (place) => (await begin(person, place)).token))
    const proof = { code: code() }
    const answers = await Promise.all(
      tokens.map((token, n) => finish(token, proof, places[n] ?? '', n === 0 ? platform.url : replica.url)),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 401])
  })

  it('cannot be guessed: five wrong codes end a login, ten lock the place out, and its owner gets in from elsewhere', async () => {
    const { person, code, recoveryCodes } = await addProtected()
    const place = newPlace()
    const wrong = { code: code(40) }
    const first = await begin(person, place)
    for (let n = 0; n < 5; n++) expect(await refusal(await finish(first.token, wrong, place))).toBe('401 unauthorized')
    expect(await refusal(await finish(first.token, { code: code() }, place))).toBe('400 login_expired')
    const second = await begin(person, place)
    for (let n = 0; n < 5; n++) await (await finish(second.token, wrong, place)).arrayBuffer()
    const third = await begin(person, place)
    expect(await refusal(await finish(third.token, { code: code() }, place))).toBe('429 limit_exceeded')
    expect((await actionsOf(person)).filter((told) => told === 'session.second_factor failure totp')).toHaveLength(10)
    // From many places: codes are bounded for the account altogether, recovery codes are not.
    const statuses: number[] = []
    for (let n = 0; n < 25; n++) statuses.push((await login(person, wrong)).status)
    expect(statuses.at(0)).toBe(401)
    expect(statuses.at(-1)).toBe(429)
    expect((await login(person, { recovery_code: recoveryCodes[0] })).status).toBe(200)
  })

  it('is asked for in the place where the login began, within its time', async () => {
    const { person, code } = await addProtected()
    const place = newPlace()
    const { token } = await begin(person, place)
    expect(await refusal(await finish(token, { code: code() }, newPlace()))).toBe('400 login_expired')
    await sql`UPDATE login_steps SET expires_at = now() WHERE user_id = ${person.user_id}`.execute(db)
    expect(await refusal(await finish(token, { code: code() }, place))).toBe('400 login_expired')
    expect(await refusal(await finish('unknown', { code: code() }, place))).toBe('400 login_expired')
    for (const proof of [{}, { code: code(), recovery_code: 'x' }]) {
      expect(await refusal(await finish(token, proof, place))).toBe('400 invalid_request')
    }
  })

  it('stays when the password is another one, and logins that have begun with the old one end', async () => {
    const { person, code } = await addProtected()
    const place = newPlace()
    const { token } = await begin(person, place)
    await people.call('/v1/me/password/reset', { body: { email: person.email } })
    const tokenOfMail = async () => {
      const mails = await db.selectFrom('mails').select('data').where('kind', '=', 'password-reset').execute()
      return mails.at(-1)?.data?.token
    }
    await expect.poll(tokenOfMail).toBeDefined()
    const reset = { token: await tokenOfMail(), new_password: 'another password' }
    expect((await people.call('/v1/me/password/reset/confirm', { body: reset })).status).toBe(204)
    expect(await refusal(await finish(token, { code: code() }, place))).toBe('400 login_expired')
    const next = await begin(person, place, { password: 'another password' })
    expect((await finish(next.token, { code: code() }, place)).status).toBe(200)
  })

  it('helps nobody whose account was disabled meanwhile', async () => {
    const { person, code } = await addProtected()
    const place = newPlace()
    const { token } = await begin(person, place)
    await platform.call('PATCH', `/v1/admin/users/${person.user_id}`, { status: 'disabled' })
    expect(await refusal(await finish(token, { code: code() }, place))).toBe('403 account_disabled')
  })

  it('is asked for before a deletion is taken back', async () => {
    const { person, code } = await addProtected()
    await people.call('/v1/me', { method: 'DELETE', token: person.token, body: { confirmation: person.email } })
    expect(await refusal(await people.login(person.email))).toBe('403 deletion_pending')
    const place = newPlace()
    const { token } = await begin(person, place, { restore: true })
    const row = () => db.selectFrom('users').selectAll().where('id', '=', person.user_id).executeTakeFirstOrThrow()
    expect((await row()).deleted_at).not.toBeNull()
    expect((await finish(token, { code: code() }, place)).status).toBe(200)
    expect((await row()).deleted_at).toBeNull()
  })

  it('is encrypted by the first key of several as it is used', async () => {
    const { person, code } = await addProtected()
    const secretOf = async () =>
      (await db.selectFrom('totp_factors').select('secret').where('user_id', '=', person.user_id).executeTakeFirst())
        ?.secret
    const before = await secretOf()
    const rotated = { ...env, WRENN_ENCRYPTION_KEY: `${'cd'.repeat(32)},${'ab'.repeat(32)}` }
    await using other = await startReplica(platform, rotated)
    const place = newPlace()
    const { token } = await begin(person, place)
    expect((await finish(token, { code: code() }, place, other.url)).status).toBe(200)
    expect((await secretOf())?.split('.')[1]).not.toBe(before?.split('.')[1])
    await forgetSteps(person)
    // Who has only the old key cannot tell whether a code is right, and lets nobody in.
    const half = await begin(person, place)
    expect(await refusal(await finish(half.token, { code: code() }, place))).toBe('501 not_supported')
  })
})

describe('recovery codes', () => {
  it('are good once each, however they are typed, and told of by mail', async () => {
    const { person, recoveryCodes } = await addProtected()
    const [first = '', second = ''] = recoveryCodes
    expect((await login(person, { recovery_code: first.toUpperCase().replaceAll('-', ' ') })).status).toBe(200)
    expect(await refusal(await login(person, { recovery_code: first }))).toBe('401 unauthorized')
    expect((await mailsTo(person)).at(-1)).toBe('a recovery code was used to sign in, 9 are left')
    const made = await post('/v1/me/factors/recovery-codes', person.token)
    const { recovery_codes: next } = await json<{ recovery_codes: string[] }>(made, 200)
    expect(await refusal(await login(person, { recovery_code: second }))).toBe('401 unauthorized')
    expect((await login(person, { recovery_code: next[0] })).status).toBe(200)
    const plain = await people.add()
    expect(await refusal(await post('/v1/me/factors/recovery-codes', plain.token))).toBe('409 conflict')
  })

  it('go with the last factor', async () => {
    const { person, recoveryCodes } = await addProtected()
    const removal = await people.call('/v1/me/factors/totp', { method: 'DELETE', token: person.token })
    expect(removal.status).toBe(204)
    expect(await factorsOf(person)).toEqual({ passkeys: [], recovery_codes_left: 0 })
    expect(await json<Tokens>(await people.login(person.email), 200)).toMatchObject({ user_id: person.user_id })
    expect(await db.selectFrom('recovery_codes').where('user_id', '=', person.user_id).selectAll().execute()).toEqual(
      [],
    )
    expect(recoveryCodes).toHaveLength(10)
    const again = await people.call('/v1/me/factors/totp', { method: 'DELETE', token: person.token })
    expect(await refusal(again)).toBe('404 not_found')
  })
})

describe('factors', () => {
  it('are changed by who has just proved who they are', async () => {
    const { person } = await addProtected()
    await sql`UPDATE sessions SET confirmed_at = 'epoch' WHERE user_id = ${person.user_id}`.execute(db)
    for (const [method, path] of [
      ['POST', 'totp'],
      ['DELETE', 'totp'],
      ['POST', 'recovery-codes'],
      ['POST', 'passkeys/options'],
      ['DELETE', `passkeys/pk-${'0'.repeat(25)}`],
    ] as const) {
      const response = await people.call(`/v1/me/factors/${path}`, { method, token: person.token })
      expect([path, await refusal(response)]).toEqual([path, '403 confirmation_needed'])
    }
    expect((await post('/v1/auth/confirm', person.token, { password: PASSWORD })).status).toBe(204)
    expect((await post('/v1/me/factors/recovery-codes', person.token)).status).toBe(200)
  })

  it('are removed by an admin for who has lost them, who is told', async () => {
    const { person } = await addProtected()
    const remove = () => platform.call('DELETE', `/v1/admin/users/${person.user_id}/factors`)
    expect((await remove()).status).toBe(204)
    expect((await remove()).status).toBe(204)
    expect(await json<Tokens>(await people.login(person.email), 200)).toMatchObject({ email: person.email })
    const told = await mailsTo(person)
    expect(told.filter((what) => what?.startsWith('an admin of the platform removed'))).toHaveLength(1)
    const admin = await people.add()
    await json(await platform.call('PATCH', `/v1/admin/users/${admin.user_id}`, { is_admin: true }), 200)
    const own = { method: 'DELETE', token: admin.token }
    expect(await refusal(await people.call(`/v1/admin/users/${admin.user_id}/factors`, own))).toBe('409 conflict')
    const plain = await people.add()
    const byPlain = await people.call(`/v1/admin/users/${person.user_id}/factors`, {
      method: 'DELETE',
      token: plain.token,
    })
    expect(await refusal(byPlain)).toBe('403 forbidden')
    const { items } = await json<AuditPage>(
      await platform.call('GET', '/v1/audit-logs?action=user.remove_factors'),
      200,
    )
    expect(items.filter(({ resource_id }) => resource_id === person.user_id)).toHaveLength(1)
  })

  it('cannot be kept by a platform without a key', async () => {
    await using bare = await startReplica(platform, { WRENN_TRUSTED_PROXIES: env.WRENN_TRUSTED_PROXIES })
    const person = await people.add()
    const response = await people.call('/v1/me/factors/totp', { body: {}, token: person.token, url: bare.url })
    const { error } = await json<ErrorBody>(response, 501)
    expect(error).toMatchObject({ code: 'not_supported', message: expect.stringContaining('WRENN_ENCRYPTION_KEY') })
  })
})
