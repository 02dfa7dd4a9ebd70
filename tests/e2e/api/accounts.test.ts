import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AuditPage, Auth, Capsule, ExecResult, Me, NewApiKey } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { Api, useCapsule, usePlatform } from '../harness/api.js'
import { wrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()

const PASSWORD = 'correct horse battery'
const anonymous = new Api(platform, '')

async function run<T>(args: readonly string[], input = ''): Promise<T> {
  const { code, stdout, stderr } = await wrenn(platform, [...args, '--json'], { input })
  if (code !== 0) throw new Error(`wrenn ${args.join(' ')}: ${code} ${stderr}`)
  return JSON.parse(stdout)
}

const bearer = ({ token = '' }: Auth) => ({ headers: { authorization: `Bearer ${token}` } })

const login = async (email: string, password = PASSWORD) =>
  await anonymous.json<Auth>('POST', '/v1/auth/login', { json: { email, password } })

/** The first account of the platform, whichever test needs it first. */
async function admin(): Promise<Auth> {
  const users = await run<{ email: string }[]>(['user', 'ls'])
  if (!users.some(({ email }) => email === 'ada@example.com')) {
    const made = await run<{ activation_token: string }>(['user', 'add', 'ada@example.com', 'Ada', '--admin'])
    await run(['user', 'activate', made.activation_token], `${PASSWORD}\n`)
  }
  return await login('ada@example.com')
}

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
    const made = await run<{ id: string; activation_token: string }>(['user', 'add', 'eve@example.com', 'Eve'])
    await run(['user', 'activate', made.activation_token], `${PASSWORD}\n`)
    const session = await login('eve@example.com')
    expect(await anonymous.refusal('GET', capsule().path, bearer(session))).toMatchObject({ status: 404 })
    const { key } = await anonymous.json<NewApiKey>('POST', '/v1/api-keys', { ...bearer(session), json: {} })
    await run(['user', 'disable', 'eve@example.com'])
    expect(await anonymous.refusal('GET', '/v1/me', bearer(session))).toMatchObject({ status: 401 })
    expect(await new Api(platform, key).refusal('GET', '/v1/capsules')).toMatchObject({ status: 401 })
    const refused = { json: { email: 'eve@example.com', password: PASSWORD } }
    expect(await anonymous.refusal('POST', '/v1/auth/login', refused)).toMatchObject({ code: 'account_disabled' })
    await run(['user', 'enable', made.id])
    expect((await login('eve@example.com')).user_id).toBe(made.id)
  })

  it('gets another password by the link of a mail', async () => {
    const { email } = await admin()
    await anonymous.json('POST', '/v1/me/password/reset', { json: { email } })
    const token = await eventually('the mail with the link', () => resetToken(email))
    const body = { json: { token, new_password: PASSWORD } }
    await anonymous.json('POST', '/v1/me/password/reset/confirm', body)
    expect((await login(email)).email).toBe(email)
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

/** Of the newest mail to an address. */
async function resetToken(address: string): Promise<string | undefined> {
  const folder = join(platform.dir, 'outbox')
  const names = (await readdir(folder)).filter((name) => name.endsWith('.eml')).sort()
  const mails = await Promise.all(names.map(async (name) => await readFile(join(folder, name), 'utf8')))
  const text = mails.filter((mail) => mail.includes(`To: ${address}`)).join('\n')
  const whole = text.replace(/=\r?\n/g, '').replace(/=3D/g, '=')
  return [...whole.matchAll(/\/reset-password\?token=([\w-]{43})/g)].at(-1)?.[1]
}
