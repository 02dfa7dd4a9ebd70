import { type Auth, type NewUser, type Permission, permissionsOfRole, roles } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

interface Route {
  readonly method: string
  readonly url: string
  readonly permission: Permission
}

interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly 'x-permission'?: Permission }>>>>
}

let platform: Platform
let db: Db
let routes: readonly Route[]
let auth: Auth

beforeAll(async () => {
  platform = await startPlatform()
  db = openDatabase({ url: platform.databaseUrl })
  const { paths } = await json<Document>(await platform.call('GET', '/openapi.json'), 200)
  routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { 'x-permission': permission }]) => {
      const url = path.replace('{id}', `cl-${'0'.repeat(25)}`).replaceAll(/\{\w+\}/g, '1')
      return permission === undefined ? [] : [{ method: method.toUpperCase(), url, permission }]
    }),
  )
  // The first one is admin of the platform; whose roles are walked is not.
  for (const name of ['first', 'second']) {
    const made = await json<NewUser>(
      await platform.call('POST', '/v1/admin/users', { email: `${name}@example.org`, name }),
      201,
    )
    const activation = { token: made.activation_token, password: 'correct horse battery staple' }
    auth = await json<Auth>(await platform.call('POST', '/v1/auth/activate', activation), 200)
  }
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

async function statusOf({ method, url }: Route): Promise<number> {
  const response = await fetch(platform.url + url, { method, headers: { authorization: `Bearer ${auth.token}` } })
  // Not to its end: some have none.
  await response.body?.cancel()
  return response.status
}

/** What everybody may do with their own account, whatever they are in a team. */
const own: readonly Permission[] = ['account.use']

describe('every route', () => {
  it.each([...roles].reverse())(
    'lets a person with the role %s do what the table grants them, and nothing else',
    async (role) => {
      const session = { team_id: auth.team_id, user_id: auth.user_id }
      await db.updateTable('team_members').set({ role }).where('user_id', '=', session.user_id).execute()
      const may = new Set([...permissionsOfRole(role), ...own])
      const isKnown = async () =>
        await (await fetch(`${platform.url}/v1/me`, { headers: { authorization: `Bearer ${auth.token}` } })).json()
      await expect.poll(isKnown).toMatchObject({ role })
      for (const route of routes) {
        // They would end the session or the account that looks.
        if (/logout|DELETE \/v1\/(me|auth)/.test(`${route.method} ${route.url}`)) continue
        const status = await statusOf(route)
        expect([route, status === 403, status === 401]).toEqual([route, !may.has(route.permission), false])
      }
    },
  )
})
