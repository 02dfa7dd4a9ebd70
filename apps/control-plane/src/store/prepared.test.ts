import { createHash } from 'node:crypto'
import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { freshDatabase } from '../testing/harness.js'
import { findCapsule, listCapsules } from './capsules.js'
import { type Db, migrateUp, openDatabase } from './database.js'
import { createTeam } from './teams.js'

describe.each(testPostgresKinds())('kept statements on $name', ({ start }) => {
  let postgres: TestPostgres
  let db: Db
  let teamId: string

  beforeAll(async () => {
    postgres = await start()
  }, 90_000)
  afterAll(async () => {
    await postgres[Symbol.asyncDispose]()
  }, 30_000)
  beforeEach(async () => {
    const url = await freshDatabase(postgres.url)
    const schema = openDatabase({ url })
    await migrateUp(schema)
    await schema.destroy()
    // What one connection keeps is looked at.
    db = openDatabase({ url, maxConnections: 1 })
    teamId = await createTeam(db, 'A team')
  })
  afterEach(async () => await db.destroy())

  const list = async (on: Db = db): Promise<unknown[]> => await listCapsules(on, teamId, { limit: 10 })
  const kept = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`SELECT count(*) AS count FROM pg_prepared_statements`.execute(db)
    return Number(rows[0]?.count)
  }

  it('are parsed once', async () => {
    await list()
    await list()
    expect(await kept()).toBe(1)
  })

  it('are parsed as others in a transaction', async () => {
    await db.transaction().execute(list)
    expect(await kept()).toBe(0)
  })

  it('live through a change of the table by another control plane', async () => {
    for (let turn = 0; turn < 8; turn++) await list()
    await sql`ALTER TABLE capsules ADD COLUMN of_a_later_version text`.execute(db)
    expect(await list()).toEqual([])
    expect(await list()).toEqual([])
    await db.transaction().execute(async (tx) => {
      expect(await list(tx)).toEqual([])
    })
  })

  it('are not kept any more when somebody in between loses them', async () => {
    await list()
    await sql`DEALLOCATE ALL`.execute(db)
    expect(await list()).toEqual([])
    expect(await list()).toEqual([])
    expect(await kept()).toBe(0)
  })

  it('are never taken for others, whoever kept them on a shared connection', async () => {
    await list()
    const { rows } = await sql<{
      name: string
      statement: string
    }>`SELECT name, statement FROM pg_prepared_statements`.execute(db)
    for (const { name, statement } of rows) {
      expect(name).toBe(`wrenn_${createHash('sha256').update(statement).digest('hex').slice(0, 32)}_0`)
    }
    await sql.raw(`DEALLOCATE ALL`).execute(db)
    await sql.raw(`PREPARE ${rows[0]?.name} AS ${rows[0]?.statement}`).execute(db)
    const other = await findCapsule(db, teamId, 'cl-none')
    expect(other).toBeUndefined()
  })

  it('tell other errors', async () => {
    await list()
    await sql`ALTER TABLE capsules RENAME COLUMN seq TO other`.execute(db)
    await expect(list()).rejects.toThrow('seq')
  })
})
