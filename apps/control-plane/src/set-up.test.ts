import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Logger } from '@wrenn/base'
import type { Auth, ErrorBody, Me, NewUser } from '@wrenn/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

const ADA = { email: 'ada@example.com', name: 'Ada', password: 'correct horse battery' }

let dir: string
let file: string
let logged: string[]
let platform: Platform
let db: Db

const write = (fields: object, event: string): void => void logged.push(JSON.stringify([event, fields]))
const logger: Logger = { debug: write, info: write, warn: write, error: write, child: () => logger }

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-setup-'))
  file = join(dir, 'set-up-code')
  logged = []
  platform = await startPlatform({ env: { WRENN_SETUP_FILE: file }, logger })
  db = openDatabase({ url: platform.databaseUrl })
}, 60_000)
afterEach(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
  await rm(dir, { recursive: true })
})

const codeIn = async (): Promise<string> => (await readFile(file, 'utf8')).trim()
const setUp = (body: object, headers: Record<string, string> = {}, url = platform.url) =>
  fetch(`${url}/v1/auth/setup`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
async function refusal(response: Response): Promise<string> {
  return `${response.status} ${(await json<ErrorBody>(response, response.status)).error.code}`
}

describe('the code of the set-up', () => {
  it('makes the first account: active, admin of the platform, owner of the first team, logged in', async () => {
    const code = await codeIn()
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const auth = await json<Auth>(await setUp({ code, ...ADA }), 201)
    const headers = { authorization: `Bearer ${auth.token}` }
    const me = await json<Me>(await fetch(`${platform.url}/v1/me`, { headers }), 200)
    const [firstTeam] = await db.selectFrom('teams').select('id').orderBy('created_at').execute()
    expect(me).toMatchObject({ email: ADA.email, name: 'Ada', is_admin: true, role: 'owner', team_id: firstTeam?.id })
    expect(await db.selectFrom('teams').selectAll().execute()).toHaveLength(1)
    const login = { email: ADA.email, password: ADA.password }
    await json(await platform.call('POST', '/v1/auth/login', login), 200)
  })

  it('is good once, and for nobody who has another', async () => {
    expect(await refusal(await setUp({ code: '0'.repeat(64), ...ADA }))).toBe('400 invalid_token')
    const code = await codeIn()
    await json(await setUp({ code, ...ADA }), 201)
    expect(await refusal(await setUp({ code, ...ADA, email: 'eve@example.com' }))).toBe('409 conflict')
    expect(await db.selectFrom('users').select('email').execute()).toEqual([{ email: ADA.email }])
    expect(await db.selectFrom('set_up_codes').selectAll().execute()).toEqual([])
  })

  it('lets one of several at once win, whichever control plane they ask', async () => {
    await using replica = await startReplica(platform)
    const code = await codeIn()
    const all = await Promise.all(
      [0, 1, 2, 3].map((n) =>
        setUp({ code, ...ADA, email: `p${n}@example.com` }, {}, n % 2 === 0 ? platform.url : replica.url),
      ),
    )
    expect(all.map(({ status }) => status).sort()).toEqual([201, 409, 409, 409])
    expect(await db.selectFrom('users').selectAll().execute()).toHaveLength(1)
  })

  it('ends when there is an account by another way, and is not made again', async () => {
    const code = await codeIn()
    const made = await json<NewUser>(
      await platform.call('POST', '/v1/admin/users', { email: 'b@example.com', name: 'B' }),
      201,
    )
    await json(
      await platform.call('POST', '/v1/auth/activate', { token: made.activation_token, password: ADA.password }),
      200,
    )
    expect(await refusal(await setUp({ code, ...ADA }))).toBe('409 conflict')
    await platform.restart()
    expect(await codeIn()).toBe('')
  })

  it('takes the account that was made for its address and never activated', async () => {
    const made = await json<NewUser>(
      await platform.call('POST', '/v1/admin/users', { email: ADA.email, name: 'B' }),
      201,
    )
    await json(await setUp({ code: await codeIn(), ...ADA }), 201)
    const token = { token: made.activation_token, password: 'another password' }
    expect(await refusal(await platform.call('POST', '/v1/auth/activate', token))).toBe('400 invalid_token')
  })

  it('lives through a restart of the control plane, and is another one when the file was emptied', async () => {
    const first = await codeIn()
    await platform.restart()
    expect(await codeIn()).toBe(first)
    await writeFile(file, '')
    await platform.restart()
    const second = await codeIn()
    expect(second).not.toBe(first)
    expect(await refusal(await setUp({ code: first, ...ADA }))).toBe('400 invalid_token')
    await json(await setUp({ code: second, ...ADA }), 201)
  })

  it('is neither in the log nor in the database', async () => {
    const code = await codeIn()
    const [row] = await db.selectFrom('set_up_codes').selectAll().execute()
    expect(row?.digest).not.toBe(code)
    await json(await setUp({ code, ...ADA }), 201)
    expect(logged.join('\n')).toContain('set_up.code_written')
    expect(logged.join('\n')).not.toContain(code)
  })

  it('cannot be guessed at for long, and needs an address and a password that are some', async () => {
    for (const wrong of [{ email: 'ada' }, { password: 'short' }, { name: '' }, { code: '' }]) {
      expect(await refusal(await setUp({ code: await codeIn(), ...ADA, ...wrong }))).toBe('400 invalid_request')
    }
    const statuses: number[] = []
    for (let n = 0; n < 11; n++) statuses.push((await setUp({ code: `${n}`, ...ADA })).status)
    expect(statuses).toEqual([...Array.from({ length: 10 }, () => 400), 429])
  })

  it('gives a page its cookies, and none to a page from elsewhere', async () => {
    const body = { code: await codeIn(), ...ADA, cookies: true }
    expect(await refusal(await setUp(body, { origin: 'https://evil.example' }))).toBe('403 forbidden')
    const response = await setUp(body, { origin: platform.url })
    expect(response.headers.getSetCookie().map((each) => each.split('=')[0])).toEqual(['wrenn_access', 'wrenn_refresh'])
    const answer = await json<Auth>(response, 201)
    expect(answer.token).toBeUndefined()
  })
})
