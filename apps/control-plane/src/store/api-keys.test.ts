import { scopes, teamScopes } from '@wrenn/protocol'
import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { Migrator, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addKey, findKey, listKeys, revokeKey } from './api-keys.js'
import { type Db, migrateUp, openDatabase } from './database.js'
import { migrations } from './migrations/index.js'

const BEFORE = '0005-pool-usage'

describe.each(testPostgresKinds())('on $name', ({ start }) => {
  let postgres: TestPostgres
  let db: Db

  beforeAll(async () => {
    postgres = await start()
    db = openDatabase({ url: postgres.url })
  }, 90_000)
  afterAll(async () => {
    await db.destroy()
    await postgres[Symbol.asyncDispose]()
  }, 30_000)

  it('keys of before there were scopes have all; going back forgets those that may do less, or not for ever', async () => {
    const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
    await migrator.migrateTo(BEFORE)
    await sql`INSERT INTO teams (id, name) VALUES ('t', 'Team')`.execute(db)
    await sql`INSERT INTO api_keys (id, team_id, name, prefix, key_hash) VALUES ('old', 't', 'old', 'wrn_', 'h')`.execute(
      db,
    )
    await migrateUp(db)
    const held = [...teamScopes, 'platform']
    expect(await findKey(db, 'h')).toMatchObject({ scopes: held, expires_at: null, revoked_at: null, created_by: null })
    const key = { teamId: 't', prefix: 'wrn_', scopes }
    await addKey(db, { ...key, name: 'less', keyHash: 'less', scopes: ['read'] })
    await addKey(db, { ...key, name: 'ends', keyHash: 'ends', expiresAt: new Date(Date.now() + 60_000) })
    const revoked = await addKey(db, { ...key, name: 'revoked', keyHash: 'revoked' })
    await revokeKey(db, revoked?.id ?? '')
    await addKey(db, { ...key, name: 'full', keyHash: 'full' })
    expect((await listKeys(db, 't', { limit: 10 })).map(({ name }) => name)).toEqual(['full', 'ends', 'less', 'old'])
    await migrator.migrateTo(BEFORE)
    const left = await sql<{ name: string }>`SELECT name FROM api_keys ORDER BY name`.execute(db)
    expect(left.rows.map(({ name }) => name)).toEqual(['full', 'old'])
  })
})
