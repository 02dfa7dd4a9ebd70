import type { NewApiKey, RegistryLogin, TemplateBuild, TemplateBuildLog } from '@wrenn/protocol'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Keyring, parseKey } from './domain/secrets/index.js'
import { RegistryLogins } from './domain/templates/registry-logins.js'
import { type Db, openDatabase } from './store/database.js'
import { createTeam, endTeam } from './store/teams.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const [FIRST_KEY, SECOND_KEY] = ['11'.repeat(32), '22'.repeat(32)]
const PATH = '/v1/registries'
const password = 'correct-horse-battery'
const actor = { id: 'key-1', name: 'ci', requestId: 'r', ip: '' }
let platform: Platform
let db: Db
let teamId: string

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_ENCRYPTION_KEY: FIRST_KEY } })
  db = openDatabase({ url: platform.databaseUrl })
  teamId = (await db.selectFrom('teams').select('id').executeTakeFirstOrThrow()).id
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const logIn = async (registry: string, body: object = { username: 'robot', password }) =>
  await platform.call('PUT', `${PATH}/${encodeURIComponent(registry)}`, body)
const list = async () => await json<RegistryLogin[]>(await platform.call('GET', PATH), 200)

/** How a build ends that begins with that image. */
async function build(from: string): Promise<{ readonly state: string; readonly text: string }> {
  const { id } = await json<TemplateBuild>(
    await platform.call('POST', '/v1/templates/builds', { name: `from-${from.replaceAll(/\W/g, '-')}`.slice(0, 60) }),
    201,
  )
  const start = await platform.call('POST', `/v1/templates/builds/${id}/start`, { stages: [{ from, steps: [] }] })
  await json(start, 202)
  for (let lines = 0, text = ''; ; ) {
    const path = `/v1/templates/builds/${id}/log?from=${lines}&wait_sec=5`
    const page = await json<TemplateBuildLog>(await platform.call('GET', path), 200)
    text += page.lines.map(({ message }) => message).join('\n')
    lines = page.next
    if (page.lines.length === 0 && page.build.ended_at !== undefined) return { state: page.build.state, text }
  }
}

it('a login is what builds of the team ask that registry with, and no other', async () => {
  const login = { username: 'robot', password }
  const image = { digest: `sha256:${'7'.repeat(64)}`, login }
  platform.host.images.set('registry.example:5000/app:1', image)
  platform.host.images.set('other.example/app:1', image)
  expect((await build('registry.example:5000/app:1')).state).toBe('error')
  const made = await json<RegistryLogin>(await logIn('registry.example:5000'), 200)
  expect(made).toEqual({
    ...{ registry: 'registry.example:5000', username: 'robot' },
    ...{ created_at: expect.any(String), updated_at: expect.any(String) },
  })
  const built = await build('registry.example:5000/app:1')
  expect([built.state, built.text]).toEqual(['ready', expect.not.stringContaining(password)])
  expect((await build('other.example/app:1')).state).toBe('error')
  expect(await list()).toEqual([made])
  await json(await logIn('registry.example:5000', { username: 'robot', password: 'another' }), 200)
  expect(await list()).toHaveLength(1)
  expect((await build('registry.example:5000/app:1')).state).toBe('error')
  expect((await platform.call('DELETE', `${PATH}/registry.example:5000`)).status).toBe(204)
  expect((await platform.call('DELETE', `${PATH}/registry.example:5000`)).status).toBe(404)
  expect(await list()).toEqual([])
})

it('its password is in no table, answer or entry of the audit trail as it is', async () => {
  await json(await logIn('ghcr.io'), 200)
  const kept = JSON.stringify([
    await db.selectFrom('registry_logins').selectAll().execute(),
    await db.selectFrom('audit_log').selectAll().execute(),
    await list(),
  ])
  expect(kept).toContain('registry.login')
  expect(kept).not.toContain(password)
})

it('is of a registry as images name it, by who may write templates', async () => {
  for (const registry of ['GHCR.io', 'https://ghcr.io', 'ghcr.io/path', 'index.docker.io', 'nothing', 'a b.c', 'x:y:1'])
    expect((await logIn(registry)).status, registry).toBe(400)
  for (const body of [
    {},
    { username: 'a:b', password },
    { username: 'a', password: '' },
    { username: 'a', password, more: 1 },
  ])
    expect((await logIn('ghcr.io', body)).status).toBe(400)
  const { key } = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['capsules'] }), 201)
  const headers = { 'x-api-key': key, 'content-type': 'application/json' }
  const url = `${platform.url}${PATH}/ghcr.io`
  const put = await fetch(url, { method: 'PUT', headers, body: JSON.stringify({ username: 'a', password }) })
  expect(put.status).toBe(403)
})

it('is opened by an old key, then kept by the new one, and by none in another place', async () => {
  await json(await logIn('ghcr.io'), 200)
  const [first, second] = [parseKey(FIRST_KEY), parseKey(SECOND_KEY)].map((key) => key ?? Buffer.alloc(0))
  if (first === undefined || second === undefined) throw new Error('two keys')
  const rotated = new RegistryLogins({ db, keyring: new Keyring([second, first]) })
  expect(await rotated.of(teamId, 'ghcr.io/own/app:1')).toEqual({ username: 'robot', password })
  const after = new RegistryLogins({ db, keyring: new Keyring([second]) })
  expect(await after.of(teamId, 'ghcr.io/own/app:1')).toEqual({ username: 'robot', password })
  const row = await db
    .selectFrom('registry_logins')
    .selectAll()
    .where('registry', '=', 'ghcr.io')
    .executeTakeFirstOrThrow()
  await db
    .insertInto('registry_logins')
    .values({ ...moved(row), registry: 'evil.example' })
    .execute()
  await expect(after.of(teamId, 'evil.example/a:1')).rejects.toThrow()
})

it('there are 50 of a team at most, and none of a team that is no more', async () => {
  const logins = new RegistryLogins({ db, keyring: new Keyring([Buffer.alloc(32, 1)]) })
  const team = await db.transaction().execute((tx) => createTeam(tx, 'many'))
  const save = (at: number) => logins.save(team, `r${at}.example`, { username: 'a', password }, actor)
  for (let at = 0; at < 50; at++) await save(at)
  await expect(save(50)).rejects.toMatchObject({ code: 'limit_exceeded' })
  await save(49)
  await db.transaction().execute((tx) => endTeam(tx, team))
  expect(await logins.list(team)).toEqual([])
})

function moved({ team_id, username, password: sealed }: { team_id: string; username: string; password: string }) {
  return { team_id, username, password: sealed }
}
