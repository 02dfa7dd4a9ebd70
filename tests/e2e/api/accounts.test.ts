import type { AuditPage, Auth, Capsule, ExecResult, Me, NewApiKey } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { Api, useCapsule, usePlatform } from '../harness/api.js'
import { addPerson, bearer, firstAdmin, logIn, PASSWORD, tokenInMail, wrennJson } from '../harness/people.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()
const anonymous = new Api(platform, '')
const admin = () => firstAdmin(platform)

describe('an account that the command line made', () => {
  it('owns the first team and works in its capsules, with a session and with a key that it makes', async () => {
    const session = await admin()
    const me = await anonymous.json<Me>('GET', '/v1/me', bearer(session))
    expect(me).toMatchObject({ email: 'ada@example.com', is_admin: true, role: 'owner' })
    expect((await anonymous.json<Capsule>('GET', capsule().path, bearer(session))).id).toBe(capsule().id)
    const command = { cmd: 'echo', args: ['hello'] }
    const result = await anonymous.json<ExecResult>('POST', `${capsule().path}/exec`, {
      ...bearer(session),
      json: command,
    })
    expect(result).toMatchObject({ stdout: 'hello\n' })
    const { key } = await anonymous.json<NewApiKey>('POST', '/v1/api-keys', { ...bearer(session), json: {} })
    expect((await new Api(platform, key).json<Capsule>('GET', capsule().path)).id).toBe(capsule().id)
  })

  it('has its logins in the audit trail, and what it did', async () => {
    const session = await admin()
    expect(
      await anonymous.refusal('POST', '/v1/auth/login', { json: { email: session.email, password: 'wrong' } }),
    ).toMatchObject({ status: 401, code: 'unauthorized' })
    const query = { action: 'session.login', actor_id: session.user_id }
    const { items } = await anonymous.json<AuditPage>('GET', '/v1/audit-logs', { ...bearer(session), query })
    expect(items.slice(0, 2).map(({ outcome, actor_type }) => `${outcome} ${actor_type}`)).toEqual([
      'failure user',
      'success user',
    ])
  })

  it('goes on with refreshed tokens, and ends when one that was used comes again', async () => {
    const first = await admin()
    const refresh = (token = '') => ({ json: { refresh_token: token } })
    const second = await anonymous.json<Auth>('POST', '/v1/auth/refresh', refresh(first.refresh_token))
    const third = await anonymous.json<Auth>('POST', '/v1/auth/refresh', refresh(second.refresh_token))
    expect((await anonymous.json<Me>('GET', '/v1/me', bearer(third))).email).toBe('ada@example.com')
    const replayed = await anonymous.refusal('POST', '/v1/auth/refresh', refresh(first.refresh_token))
    expect(replayed).toMatchObject({ status: 401, code: 'unauthorized' })
    for (const each of [first, second, third]) {
      expect(await anonymous.refusal('GET', '/v1/me', bearer(each))).toMatchObject({ status: 401 })
    }
  })

  it('can be disabled, with its sessions and keys, and enabled again', async () => {
    await admin()
    const { id, email } = await addPerson(platform, 'Eve')
    const session = await logIn(platform, email)
    expect(await anonymous.refusal('GET', capsule().path, bearer(session))).toMatchObject({ status: 404 })
    const { key } = await anonymous.json<NewApiKey>('POST', '/v1/api-keys', { ...bearer(session), json: {} })
    await wrennJson(platform, ['user', 'disable', email])
    expect(await anonymous.refusal('GET', '/v1/me', bearer(session))).toMatchObject({ status: 401 })
    expect(await new Api(platform, key).refusal('GET', '/v1/capsules')).toMatchObject({ status: 401 })
    const refused = { json: { email, password: PASSWORD } }
    expect(await anonymous.refusal('POST', '/v1/auth/login', refused)).toMatchObject({ code: 'account_disabled' })
    await wrennJson(platform, ['user', 'enable', id])
    expect((await logIn(platform, email)).user_id).toBe(id)
  })

  it('gets another password by the link of a mail', async () => {
    await admin()
    const { email } = await addPerson(platform, 'Carol')
    await anonymous.json('POST', '/v1/me/password/reset', { json: { email } })
    const token = await tokenInMail(platform, email, '/reset-password')
    const body = { json: { token, new_password: PASSWORD } }
    await anonymous.json('POST', '/v1/me/password/reset/confirm', body)
    expect((await logIn(platform, email)).email).toBe(email)
  })
})

describe('without credentials', () => {
  it('nobody sees an account, and nobody signs up once there is one', async () => {
    await admin()
    for (const path of ['/v1/me', '/v1/auth/sessions', '/v1/admin/users']) {
      expect(await anonymous.refusal('GET', path)).toMatchObject({ status: 401, code: 'unauthorized' })
    }
    const json = { email: 'stranger@example.com', password: PASSWORD, name: 'Stranger' }
    expect(await anonymous.refusal('POST', '/v1/auth/signup', { json })).toMatchObject({ code: 'forbidden' })
  })

  it('a key is no person', async () => {
    expect(await api.refusal('GET', '/v1/me')).toMatchObject({ status: 403, code: 'forbidden' })
  })
})
