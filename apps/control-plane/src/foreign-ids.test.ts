import type { Capsule, Invitation, NewApiKey, Permission } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'
import { newEmail, People, type Tokens } from './testing/people.js'

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly 'x-permission'?: Permission }>>>>
}
type Ids = Readonly<Record<string, string>>

let platform: Platform
let people: People
let owner: Tokens
let stranger: Tokens
/** Of all teams but the owner's. */
let key: string
let capsule: Capsule
/** By the name of a parameter below a path. */
let theirs: Readonly<Record<string, Ids>>
let routes: readonly { readonly method: string; readonly path: string }[]

const absent: Readonly<Record<string, Ids>> = {
  capsules: { id: `cl-${'0'.repeat(25)}` },
  snapshots: { name: 'nobody-has-this' },
  'api-keys': { id: `key-${'0'.repeat(25)}` },
  teams: { id: `team-${'0'.repeat(25)}` },
  auth: { id: `ses-${'0'.repeat(25)}` },
  channels: { id: `ch-${'0'.repeat(25)}` },
}
/** What makes a request whole, so that it is refused for its id and for nothing else. */
const bodies: Readonly<Record<string, object>> = {
  'PUT /v1/capsules/{id}/egress': { deny: ['192.0.2.0/24'] },
  'POST /v1/capsules/{id}/exec': { cmd: 'true' },
  'PATCH /v1/capsules/{id}': { name: 'taken' },
  'PATCH /v1/teams/{id}': { name: 'Taken' },
  'PATCH /v1/teams/{id}/members/{user_id}': { role: 'viewer' },
  'POST /v1/teams/{id}/members': { email: 'x@example.com' },
  'POST /v1/teams/{id}/transfer': { user_id: `usr-${'0'.repeat(25)}` },
  'POST /v1/teams/{id}/invitations': { email: 'x@example.com' },
  'PATCH /v1/channels/{id}': { name: 'taken' },
  'PUT /v1/channels/{id}/config': { config: { url: 'https://example.com/' } },
}
const filePaths = { path: '/tmp/x', source: '/tmp/x', destination: '/tmp/y' }

beforeAll(async () => {
  platform = await startPlatform({
    env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1', WRENN_ENCRYPTION_KEY: '11'.repeat(32) },
  })
  people = new People(platform)
  await people.add('Ada')
  owner = await people.add('Owner')
  stranger = await people.add('Stranger')
  const post = async <T>({ token }: Tokens, path: string, body: object) =>
    await json<T>(await people.call(path, { token, body }), 201)
  key = (await post<NewApiKey>(stranger, '/v1/api-keys', { scopes: ['read', 'capsules', 'templates', 'admin'] })).key
  capsule = await post<Capsule>(owner, '/v1/capsules', {})
  const checkpoint = await post<{ id: string }>(owner, `/v1/capsules/${capsule.id}/checkpoints`, { name: 'before' })
  await post(owner, '/v1/snapshots', { capsule_id: capsule.id, name: 'owned' })
  const made = await post<NewApiKey>(owner, '/v1/api-keys', { scopes: ['read'] })
  const invited = await post<Invitation>(owner, `/v1/teams/${owner.team_id}/invitations`, { email: newEmail() })
  const channel = await post<{ id: string }>(owner, '/v1/channels', {
    ...{ name: 'owned', provider: 'webhook', events: ['member.role'], config: { url: 'https://example.com/' } },
  })
  const point = { cid: checkpoint.id, a: checkpoint.id, b: 'current', selector: '1' }
  const inTeam = { user_id: owner.user_id, invitation_id: invited.id }
  theirs = {
    capsules: { id: capsule.id, ...point },
    snapshots: { name: 'owned' },
    'api-keys': { id: made.id },
    teams: { id: owner.team_id, ...inTeam },
    auth: { id: owner.session_id },
    channels: { id: channel.id, delivery_id: `${'0'.repeat(8)}-0000-4000-8000-${'0'.repeat(12)}` },
  }
  const { paths } = await json<Document>(await platform.call('GET', '/openapi.json'), 200)
  routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => ({ method: method.toUpperCase(), path })),
  )
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

/** Routes about things of teams and people, but for WebSockets, whose own suite asks the same. */
const about = (path: string): Ids | undefined => {
  const [, group = ''] = /^\/v1\/([\w-]+)\/(?:sessions\/)?\{(?:id|name)\}/.exec(path) ?? []
  return /\/(?:stream|pty)$/.test(path) && !path.includes('/files/') ? undefined : theirs[group]
}

/** What somebody is told, without what names the thing and the request. */
async function told(method: string, path: string, ids: Ids, credential: Record<string, string>): Promise<string> {
  const all: Ids = { ...about(path), ...ids }
  const url = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => all[name] ?? '1')
  const query = ['GET', 'HEAD', 'PUT'].includes(method) ? '?path=/tmp/x' : ''
  const body = bodies[`${method} ${path}`] ?? (path.includes('/files/') ? bodyOf(path) : {})
  const hasBody = !['GET', 'HEAD', 'DELETE'].includes(method)
  const isJson = hasBody && !(method === 'PUT' && path.includes('/files'))
  const response = await fetch(platform.url + url + (path.includes('file') ? query : ''), {
    method,
    headers: { ...credential, ...(isJson ? { 'content-type': 'application/json' } : {}) },
    ...(!hasBody ? {} : { body: isJson ? JSON.stringify(body) : 'x' }),
  })
  const text = (await response.text()).replaceAll(/req-\w+/g, 'REQUEST')
  return `${response.status} ${Object.values(all).reduce((sum, id) => sum.replaceAll(id, 'ID'), text)}`
}

function bodyOf(path: string): object {
  const { source, destination, path: file } = filePaths
  return path.endsWith('/move') ? { source, destination } : { path: file }
}

describe('what another team has', () => {
  it.each(['a session', 'a key'])('is told apart from what is not there by no route, with %s', async (kind) => {
    const credential: Record<string, string> =
      kind === 'a key' ? { 'x-api-key': key } : { authorization: `Bearer ${stranger.token}` }
    const asked = routes.filter(({ path }) => about(path) !== undefined)
    expect(asked.length).toBeGreaterThan(35)
    const answers: string[] = []
    for (const { method, path } of asked) {
      const [, group = ''] = /^\/v1\/([\w-]+)/.exec(path) ?? []
      const foreign = await told(method, path, {}, credential)
      expect([method, path, foreign]).toEqual([method, path, await told(method, path, absent[group] ?? {}, credential)])
      answers.push(`${foreign.slice(0, 3)} ${method} ${path}`)
    }
    expect(answers.filter((answer) => answer.startsWith('404 ')).length).toBeGreaterThan(35)
    // What is not whole is refused before it is looked for, a key where only people may do something.
    const others = answers.filter((answer) => !/^40[04] /.test(answer))
    expect(others.filter((answer) => kind === 'a session' || !answer.startsWith('403 '))).toEqual([])
  })

  it('is as it was', async () => {
    const { token } = owner
    const mine = await json<Capsule>(await people.call(`/v1/capsules/${capsule.id}`, { token }), 200)
    expect([mine.state, mine.name]).toEqual([capsule.state, capsule.name])
    for (const path of ['/v1/me', `/v1/teams/${owner.team_id}`, `/v1/capsules/${capsule.id}/checkpoints/before`]) {
      expect((await people.call(path, { token })).status, path).toBe(200)
    }
  })
})
