import { silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { createTeam, endTeam } from '../../store/teams.js'
import { freshDatabase } from '../../testing/harness.js'
import { ApiKeys } from './api-keys.js'
import { recoverKey } from './recover-key.js'

let postgres: TestPostgres
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await db?.destroy()
  db = openDatabase({ url: await freshDatabase(postgres.url) })
  await migrateUp(db)
})

describe('a key for who has lost all', () => {
  it('may do everything for ever, and the team is told in its trail who made it', async () => {
    const teamId = await createTeam(db, 'Forgetful')
    const { key, id, teamName } = await recoverKey(db)
    expect(teamName).toBe('Forgetful')
    const notifications = { isFresh: false, listen: () => {} }
    const keys = new ApiKeys({ db, notifications, logger: silentLogger })
    expect(await keys.authenticate(key)).toMatchObject({
      id,
      teamId,
      scopes: ['read', 'capsules', 'templates', 'admin', 'platform', 'monitor'],
      expiresAt: undefined,
    })
    const [entry] = await db.selectFrom('audit_log').selectAll().execute()
    expect(entry).toMatchObject({ action: 'api_key.recover', actor_type: 'system', resource_id: id, scope: 'admin' })
    expect(JSON.stringify(entry)).not.toContain(key)
  })

  it('does not make another team the first one when that was deleted', async () => {
    const first = await createTeam(db, 'First')
    await createTeam(db, 'Second')
    await endTeam(db, first)
    await recoverKey(db)
    const [key] = await db.selectFrom('api_keys').select('scopes').execute()
    expect(key?.scopes).not.toContain('platform')
  })

  it('is for the team that is named where there are several', async () => {
    await expect(recoverKey(db)).rejects.toThrow('There is no team yet')
    const first = await createTeam(db, 'First')
    const second = await createTeam(db, 'Second')
    await expect(recoverKey(db)).rejects.toThrow('There are several teams')
    expect(await recoverKey(db, second)).toMatchObject({ teamId: second })
    await expect(recoverKey(db, 'team-none')).rejects.toThrow(first)
    expect(await db.selectFrom('api_keys').select(['team_id', 'scopes']).execute()).toEqual([
      { team_id: second, scopes: ['read', 'capsules', 'templates', 'admin'] },
    ])
  })
})
