import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { findKey } from '../../store/api-keys.js'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { freshDatabase } from '../../testing/harness.js'
import { storedForm } from './api-keys.js'
import { ensureFirstKey } from './first-key.js'

let dir = ''
let file = ''
let postgres: TestPostgres
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-keys-'))
  file = join(dir, 'api-key')
}, 60_000)
afterAll(async () => {
  await db?.destroy()
  await postgres[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})
beforeEach(async () => {
  await db?.destroy()
  db = openDatabase({ url: await freshDatabase(postgres.url) })
  await migrateUp(db)
  await rm(file, { force: true })
})

async function expectValidKey(): Promise<void> {
  const key = (await readFile(file, 'utf8')).trim()
  expect(key).toMatch(/^wrn_[0-9a-f]{32}$/)
  expect(await findKey(db, storedForm(key).keyHash)).toMatchObject({
    scopes: ['read', 'capsules', 'templates', 'admin', 'platform', 'monitor'],
    expires_at: null,
    revoked_at: null,
  })
}

describe('the first key', () => {
  it('is written into the very file that was made for it, for its owner alone, and into a new one', async () => {
    await writeFile(file, '', { mode: 0o600 })
    const { ino } = await stat(file)
    await ensureFirstKey(db, file, silentLogger)
    expect(await stat(file)).toMatchObject({ ino, mode: 0o100_600 })
    await expectValidKey()
  })

  it('is made where there is no file', async () => {
    await ensureFirstKey(db, file, silentLogger)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    await expectValidKey()
  })

  it('takes the place of half a key that a crash has left, and of a longer text', async () => {
    for (const left of ['wrn_0123', `wrn_${'x'.repeat(60)}\n`]) {
      await writeFile(file, left)
      await ensureFirstKey(db, file, silentLogger)
      await expectValidKey()
      await db.deleteFrom('api_keys').execute()
    }
  })

  it('is one also when two control planes start at once, each with a file of its own', async () => {
    const other = `${file}-other`
    await Promise.all([ensureFirstKey(db, file, silentLogger), ensureFirstKey(db, other, silentLogger)])
    expect(await db.selectFrom('api_keys').select('id').execute()).toHaveLength(1)
    expect(await db.selectFrom('teams').select('id').execute()).toHaveLength(1)
  })

  it('is the one that the file has when the database has none, and is left alone when it has one', async () => {
    const kept = `wrn_${'a'.repeat(32)}`
    await writeFile(file, `${kept}\n`)
    await ensureFirstKey(db, file, silentLogger)
    await ensureFirstKey(db, file, silentLogger)
    expect(await readFile(file, 'utf8')).toBe(`${kept}\n`)
    await expectValidKey()
    await writeFile(file, '')
    await ensureFirstKey(db, file, silentLogger)
    expect(await readFile(file, 'utf8')).toBe('')
  })
})
