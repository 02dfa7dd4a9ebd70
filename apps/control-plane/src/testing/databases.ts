import { startTestPostgres, type TestPostgresKind } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll } from 'vitest'
import { type Db, migrateUp, openDatabase } from '../store/database.js'
import { freshDatabase } from './harness.js'

/**
 * One server for the tests of a suite, and new databases on it, brought up to date; each is closed after the test that asked for it, after
 * what the suite itself does then.
 */
export function useDatabases(start: TestPostgresKind['start'] = startTestPostgres) {
  let postgres: Awaited<ReturnType<typeof start>>
  const open: Db[] = []
  beforeAll(async () => {
    postgres = await start()
  }, 90_000)
  afterAll(async () => {
    await postgres[Symbol.asyncDispose]()
  }, 30_000)
  afterEach(async () => {
    for (const db of open.splice(0)) await db.destroy()
  })
  return async (): Promise<{ readonly db: Db; readonly url: string }> => {
    const url = await freshDatabase(postgres.url)
    const db = openDatabase({ url })
    open.push(db)
    await migrateUp(db)
    return { db, url }
  }
}
