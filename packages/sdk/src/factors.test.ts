import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, type Seen, sendJson } from './fake-server.fixture.js'
import { SecondFactorNeededError, Wrenn } from './index.js'

const AT = '2026-11-29T09:00:00.000Z'
const wireAuth = {
  token: 'wra_1',
  refresh_token: 'wrr_1',
  expires_at: AT,
  session_id: 'ses-1',
  user_id: 'usr-1',
  team_id: 'team-1',
  email: 'ada@example.com',
  name: 'Ada',
}
const wirePasskey = { id: 'pk-1', name: 'Phone', synced: true, created_at: AT }

let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: 'wra_0' })
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const told = ({ method, path, body }: Seen): unknown => [
  `${method} ${path}`,
  body === '' ? undefined : JSON.parse(body),
]

describe('a login that needs a second factor', () => {
  it('says so, and is finished with one', async () => {
    const half = { second_factor: { token: 'half', methods: ['passkey', 'totp'], expires_at: AT } }
    server.handler = ({ path }, response) => {
      if (path === '/v1/auth/login') return sendJson(response, half)
      if (path === '/v1/auth/second-factor/passkey') return sendJson(response, { challenge: 'c' })
      sendJson(response, wireAuth)
    }
    const error: unknown = await wrenn.account.login('ada@example.com', 'pw').catch((thrown: unknown) => thrown)
    if (!(error instanceof SecondFactorNeededError)) throw error
    expect(error).toMatchObject({ code: 'second_factor_needed', isRetryable: false })
    expect(error.login).toEqual({ token: 'half', methods: ['passkey', 'totp'], expiresAt: new Date(AT) })
    expect(await wrenn.account.secondFactorPasskeyOptions(error.login)).toEqual({ challenge: 'c' })
    expect(await wrenn.account.finishLogin(error.login, { code: '123456' })).toMatchObject({ token: 'wra_1' })
    await wrenn.account.finishLogin(error.login, { recoveryCode: 'abcd' })
    await wrenn.account.finishLogin(error.login, { passkey: { id: 'x' } })
    expect(server.seen.slice(2).map(told)).toEqual([
      ['POST /v1/auth/second-factor', { token: 'half', code: '123456' }],
      ['POST /v1/auth/second-factor', { token: 'half', recovery_code: 'abcd' }],
      ['POST /v1/auth/second-factor', { token: 'half', passkey: { id: 'x' } }],
    ])
  })

  it('is none with a passkey alone', async () => {
    server.handler = ({ path }, response) =>
      sendJson(response, path === '/v1/auth/passkey' ? wireAuth : { challenge: 'c' })
    expect(await wrenn.account.passkeyLoginOptions()).toEqual({ challenge: 'c' })
    expect(await wrenn.account.passkeyLogin({ id: 'x' }, { restore: true })).toMatchObject({ userId: 'usr-1' })
    expect(server.seen.map(told).at(-1)).toEqual(['POST /v1/auth/passkey', { passkey: { id: 'x' }, restore: true }])
  })
})

describe('factors', () => {
  it('are listed, added, renamed and removed', async () => {
    const answers: Record<string, object | undefined> = {
      'GET /v1/me/factors': { totp_since: AT, passkeys: [wirePasskey], recovery_codes_left: 9 },
      'POST /v1/me/factors/totp': { secret: 'S', uri: 'otpauth://totp/x' },
      'POST /v1/me/factors/totp/confirm': { recovery_codes: ['a', 'b'] },
      'POST /v1/me/factors/recovery-codes': { recovery_codes: ['c'] },
      'POST /v1/me/factors/passkeys/options': { challenge: 'c' },
      'POST /v1/me/factors/passkeys': { ...wirePasskey, last_used: AT },
      'PATCH /v1/me/factors/passkeys/pk-1': { ...wirePasskey, name: 'Desk' },
      'POST /v1/auth/confirm/passkey': { challenge: 'd' },
    }
    server.handler = ({ method, path }, response) => {
      const answer = answers[`${method} ${path}`]
      if (answer !== undefined) return sendJson(response, answer)
      response.writeHead(204).end()
    }
    const { factors, account } = wrenn
    const passkey = { id: 'pk-1', name: 'Phone', isSynced: true, createdAt: new Date(AT), lastUsedAt: undefined }
    expect(await factors.list()).toEqual({ totpSince: new Date(AT), passkeys: [passkey], recoveryCodesLeft: 9 })
    expect(await factors.beginTotp()).toEqual({ secret: 'S', uri: 'otpauth://totp/x' })
    expect(await factors.confirmTotp('123456')).toEqual(['a', 'b'])
    expect(await factors.newRecoveryCodes()).toEqual(['c'])
    expect(await factors.passkeyOptions()).toEqual({ challenge: 'c' })
    expect(await factors.addPasskey('Phone', { id: 'x' })).toEqual({
      ...passkey,
      lastUsedAt: new Date(AT),
      recoveryCodes: undefined,
    })
    expect((await factors.renamePasskey('pk-1', 'Desk')).name).toBe('Desk')
    expect(await account.confirmOptions()).toEqual({ challenge: 'd' })
    await account.confirm({ passkey: { id: 'x' } })
    await factors.removePasskey('pk-1')
    await factors.removeTotp()
    await wrenn.users.removeFactors('usr-1')
    expect(server.seen.slice(-4).map(told)).toEqual([
      ['POST /v1/auth/confirm', { passkey: { id: 'x' } }],
      ['DELETE /v1/me/factors/passkeys/pk-1', undefined],
      ['DELETE /v1/me/factors/totp', undefined],
      ['DELETE /v1/admin/users/usr-1/factors', undefined],
    ])
  })
})
