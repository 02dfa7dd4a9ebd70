import { silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { addKey, revokeKey } from '../../store/api-keys.js'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import { createTeam } from '../../store/teams.js'
import { ApiKeys, newApiKey, storedForm } from './api-keys.js'

/** Notifications by hand. */
class Told implements Pick<Notifications, 'isFresh' | 'listen'> {
  isFresh = true
  tell: () => void = () => {}

  listen(_channel: string, onPayload: (payload: string) => void): void {
    this.tell = () => onPayload('')
  }
}

let postgres: TestPostgres
let db: Db
let told: Told
let keys: ApiKeys
let queries: number
let key: string
let id: string

beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url })
  await migrateUp(db)
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  key = newApiKey()
  const teamId = await createTeam(db, 'Team')
  id = (await addKey(db, { teamId, name: 'a key', scopes: ['read'], ...storedForm(key) }))?.id ?? ''
  queries = 0
  const counted = db.withPlugin({
    transformQuery: ({ node }) => {
      queries++
      return node
    },
    transformResult: async ({ result }) => result,
  })
  told = new Told()
  keys = new ApiKeys({ db: counted, notifications: told, logger: silentLogger })
})

describe('knowing keys', () => {
  it('asks the database once, then not at all while it hears of changes', async () => {
    for (let times = 0; times < 100; times++) expect((await keys.authenticate(key)).id).toBe(id)
    expect(queries).toBe(1)
  })

  it('asks each time while it does not hear', async () => {
    await keys.authenticate(key)
    told.isFresh = false
    await keys.authenticate(key)
    await revokeKey(db, id)
    await expect(keys.authenticate(key)).rejects.toMatchObject({ code: 'unauthorized' })
  })

  it('forgets what it hears of', async () => {
    await keys.authenticate(key)
    await revokeKey(db, id)
    await keys.authenticate(key)
    told.tell()
    await expect(keys.authenticate(key)).rejects.toThrow('revoked')
  })

  it('does not keep what it read before a change that it heard of meanwhile', async () => {
    const reading = keys.authenticate(key)
    told.tell()
    await reading
    await keys.authenticate(key)
    expect(queries).toBe(2)
  })

  it('lets a key do nothing by a scope that it does not know', async () => {
    await sql`UPDATE api_keys SET scopes = '{everything,read}' WHERE id = ${id}`.execute(db)
    const { scopes, permissions } = await keys.authenticate(key)
    expect(scopes).toEqual(['read'])
    expect(permissions.has('capsules.use')).toBe(false)
  })

  it('writes uses together, and never an older one', async () => {
    await keys.authenticate(key)
    await keys.authenticate(key)
    expect(queries).toBe(1)
    await keys.flush()
    expect(queries).toBe(2)
    const row = () => db.selectFrom('api_keys').select('last_used_at').where('id', '=', id).executeTakeFirstOrThrow()
    const first = (await row()).last_used_at
    expect(first).not.toBeNull()
    const later = new Date(Date.now() + 60_000)
    await db.updateTable('api_keys').set({ last_used_at: later }).where('id', '=', id).execute()
    await keys.authenticate(key)
    await keys.flush()
    expect((await row()).last_used_at).toEqual(later)
  })
})
