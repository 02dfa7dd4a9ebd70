import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { runCommandLine } from './commands.js'
import { listMigrations, migrateUp, openDatabase } from './store/database.js'
import { migrations } from './store/migrations/index.js'
import { freshDatabase } from './testing/harness.js'

let postgres: TestPostgres
let databaseUrl: string

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  databaseUrl = await freshDatabase(postgres.url)
})

/** What the command says on stdout. */
async function run(...[command = '', ...args]: readonly string[]): Promise<{ code: number; answer: object }> {
  const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  try {
    const code = await runCommandLine(command, args, {
      databaseUrl,
      encryptionKeys: [],
      encryptionKeyFile: undefined,
    })
    return { code, answer: JSON.parse(String(written.mock.calls.at(-1)?.[0])) }
  } finally {
    written.mockRestore()
  }
}

const names = Object.keys(migrations)
const [first = ''] = names
const refusal = (code: string) => ({ code: 1, answer: { type: 'error', code, message: expect.any(String) } })

describe('the schema', () => {
  it('goes down to a migration and up again, and is listed with what was applied', async () => {
    const db = openDatabase({ url: databaseUrl, application: 'test' })
    try {
      await migrateUp(db)
      const { answer } = await run('migrations')
      expect(answer).toEqual({
        type: 'result',
        migrations: names.map((name) => ({ name, appliedAt: expect.any(String) })),
      })
      expect(await run('migrate-down', first)).toEqual({
        code: 0,
        answer: { type: 'result', reverted: names.slice(1).reverse() },
      })
      expect(
        (await listMigrations(db)).filter(({ appliedAt }) => appliedAt !== undefined).map(({ name }) => name),
      ).toEqual([first])
      expect(await run('migrate-down', first)).toEqual({ code: 0, answer: { type: 'result', reverted: [] } })
      await migrateUp(db)
    } finally {
      await db.destroy()
    }
  })

  it('goes nowhere under a control plane, nor to a migration that was not applied', async () => {
    const db = openDatabase({ url: databaseUrl })
    await migrateUp(db)
    expect(await run('migrate-down', first)).toEqual(refusal('conflict'))
    await db.destroy()
    await expect
      .poll(async () => (await run('migrate-down', 'unknown')).answer)
      .toMatchObject({ code: 'invalid_request' })
  })
})

describe('a command', () => {
  it('is refused when there is none of the name, or no database', async () => {
    expect(await run('dance')).toEqual(refusal('invalid_request'))
    databaseUrl = 'postgresql://postgres@127.0.0.1:1/none'
    expect(await run('migrations')).toEqual(refusal('database_unavailable'))
  })
})
