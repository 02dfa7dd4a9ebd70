import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { AuditPage, Auth, Capsule, ExecResult, Me, NewApiKey, Session } from '@wrenn/protocol'
import { Secret, TOTP } from 'otpauth'
import { afterAll, describe, expect, it } from 'vitest'
import { Api, useCapsule, usePlatform } from '../harness/api.js'
import { addPerson, bearer, firstAdmin, logIn, PASSWORD, tokenInMail, wrennJson } from '../harness/people.js'
import { collect, spawnWrenn, wrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()
const anonymous = new Api(platform, '')
const admin = () => firstAdmin(platform)

describe('an account', () => {
  it('made by the link of the set-up owns the first team and works in its capsules, with a session and with a key that it makes', async () => {
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

  it('that is there ends the link of the set-up, whose code no log has', async () => {
    await admin()
    const said = await readFile(platform.log, 'utf8')
    const codes = [...said.matchAll(/setup#code=([0-9a-f]{64})/g)].map(([, code]) => code ?? '')
    const json = { code: codes.at(-1) ?? '0', email: 'eve@example.com', name: 'Eve', password: PASSWORD }
    expect(await anonymous.refusal('POST', '/v1/auth/setup', { json })).toMatchObject({ status: 409, code: 'conflict' })
    const logs = await readdir(join(platform.dir, 'logs'))
    const written = await Promise.all(logs.map((name) => readFile(join(platform.dir, 'logs', name), 'utf8')))
    for (const code of codes) expect(written.join('\n')).not.toContain(code)
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

describe('a command line without a key', () => {
  const env = { WRENN_API_KEY: '', WRENN_LOGINS: join(platform.dir, 'test-logins.json') }
  afterAll(async () => {
    await rm(env.WRENN_LOGINS, { force: true })
  })

  it('is logged in with a password, works in any of its teams, and is out again', async () => {
    await admin()
    const { email } = await addPerson(platform, 'Dora')
    const login = { input: `${PASSWORD}\n`, env }
    expect(await wrennJson(platform, ['login', '--email', email], login)).toMatchObject({ email })
    expect(await wrennJson(platform, ['whoami'], { env })).toMatchObject({ email, team: { role: 'owner' } })
    const { id } = await wrennJson<{ id: string }>(platform, ['team', 'create', 'Second'], { env })
    await wrennJson(platform, ['team', 'switch', id], { env })
    expect(await wrennJson(platform, ['whoami'], { env })).toMatchObject({ team: { id, name: 'Second' } })
    expect(await wrennJson(platform, ['capsule', 'ls'], { env })).toEqual([])
    expect(await wrennJson(platform, ['logout'], { env })).toEqual({ logged_out: true })
    expect(await wrennJson(platform, ['logout'], { env })).toEqual({ logged_out: false })
  })

  it('deletes the account of its login, and takes it back', async () => {
    await admin()
    const { email } = await addPerson(platform, 'Gina')
    const login = { input: `${PASSWORD}\n`, env }
    await wrennJson(platform, ['login', '--email', email], login)
    const other = await wrenn(platform, ['user', 'delete-me', 'somebody@example.org'], { env })
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining('confirmation')])
    const deleted = await wrennJson<{ erase_at: string }>(platform, ['user', 'delete-me', email], { env })
    expect(Date.parse(deleted.erase_at)).toBeGreaterThan(Date.now())
    const gone = await wrenn(platform, ['user', 'delete-me', email], { env })
    expect([gone.code, gone.stderr]).toEqual([1, expect.stringContaining('wrenn login')])
    const refused = await wrenn(platform, ['login', '--email', email], login)
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('deletion_pending')])
    expect(await wrennJson(platform, ['login', '--email', email, '--restore'], login)).toMatchObject({ email })
    expect(await wrennJson(platform, ['whoami'], { env })).toMatchObject({ email })
    await wrennJson(platform, ['logout'], { env })
  })

  it('needs a second factor of who has one, until an admin removes it; its secret is encrypted with a key of the directory', async () => {
    await admin()
    const { email } = await addPerson(platform, 'Frances')
    const session = await logIn(platform, email)
    const post = <T>(path: string, json: object = {}) =>
      anonymous.json<T>('POST', `/v1/me/factors/${path}`, { ...bearer(session), json })
    const { secret } = await post<{ secret: string }>('totp')
    const code = new TOTP({ secret: Secret.fromBase32(secret) }).generate()
    const { recovery_codes: codes } = await post<{ recovery_codes: string[] }>('totp/confirm', { code })
    const login = { input: `${PASSWORD}\n`, env }
    const withCode = ['login', '--email', email, '--code', codes[0] ?? '']
    expect(await wrennJson(platform, withCode, login)).toMatchObject({ email })
    const again = await wrenn(platform, withCode, login)
    expect([again.code === 0, again.stderr]).toEqual([false, expect.stringContaining('unauthorized')])
    expect((await stat(join(platform.dir, 'encryption-key'))).mode & 0o777).toBe(0o600)
    await wrennJson(platform, ['user', 'remove-factors', email])
    expect(await wrennJson(platform, ['login', '--email', email], login)).toMatchObject({ email })
    await wrennJson(platform, ['logout'], { env })
  })

  it('is let in by its person, who approves its code elsewhere', async () => {
    const person = await admin()
    const waiting = spawnWrenn(platform, ['login', '--json'], env)
    let said = ''
    waiting.stderr?.on('data', (text: Buffer) => {
      said += text
    })
    const result = collect(waiting, '')
    const code = await eventually('a code', async () => /device\?code=([A-Z-]+)/.exec(said)?.[1])
    await anonymous.json('POST', `/v1/auth/device/${code}`, { ...bearer(person), json: { approve: true } })
    const { code: exitCode, stdout } = await result
    expect([exitCode, JSON.parse(stdout)]).toMatchObject([0, { email: person.email, user_id: person.user_id }])
    // Its team's capsules are there, and its shell has a session that is listed.
    const seen = await wrennJson<{ id: string }[]>(platform, ['capsule', 'ls'], { env })
    expect(seen.map(({ id }) => id)).toContain(capsule().id)
    const { stdout: hello } = await wrenn(platform, ['capsule', 'exec', capsule().id, '--', 'echo', 'hello'], { env })
    expect(hello).toBe('hello\n')
    const sessions = await anonymous.json<Session[]>('GET', '/v1/auth/sessions', bearer(person))
    for (const { id, current } of sessions) {
      if (!current) await anonymous.call('DELETE', `/v1/auth/sessions/${id}`, bearer(person))
    }
    const over = await wrenn(platform, ['capsule', 'ls'], { env })
    expect([over.code, over.stderr]).toEqual([1, expect.stringContaining('wrenn login')])
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
