import { AppError, type Logger, silentLogger, waitFor } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { BuildHousekeeping } from './housekeeping.js'

const TEAM = 'team-a'
const DAY_MS = 86_400_000
const limits = {
  ...{ timeoutMs: 60_000, readyWithinMs: 60_000, concurrency: 1, maxOpen: 1, filesDir: undefined },
  ...{ uploadBytes: 1, filesBytes: 1, logBytes: 1, cacheResults: 0, cacheMs: DAY_MS },
}
let postgres: TestPostgres
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url })
  await migrateUp(db)
  await db.insertInto('teams').values({ id: TEAM, name: 'A' }).execute()
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})

describe('what builds have left', () => {
  it('goes, whatever cannot go yet', async () => {
    const open = { team_id: TEAM, name: 'mine', state: 'waiting' as const, plan: '{}' }
    const builds = ['stuck', 'other'].map((id) => ({ ...open, id: `build-${id}`, capsule_id: `cap-${id}` }))
    await db.insertInto('template_builds').values(builds).execute()
    await db.updateTable('template_builds').set({ state: 'error', ended_at: sql<Date>`now()` }).execute()
    const sizes = { template: 'base', vcpus: 1, memory_mib: 256, disk_size_mib: 1024, versions: '{}' }
    const hidden = { team_id: TEAM, capsule_id: 'cap-x', hidden: true, state: 'ready' as const, ...sizes }
    const spent = ['stuck', 'other'].map((name) => ({ ...hidden, name, id: `snap-${name}` }))
    await db.insertInto('snapshots').values(spent).execute()
    const gone: string[] = []
    const warnings: unknown[] = []
    const logger: Logger = { ...silentLogger, warn: (...said) => void warnings.push(said) }
    const housekeeping = new BuildHousekeeping({
      capsules: {
        destroy: async (_team, id) => {
          if (id === 'cap-stuck') throw new AppError('internal_error', 'It cannot go.')
          gone.push(id)
          throw new AppError('capsule_not_found', 'It is gone already.')
        },
      },
      snapshots: {
        discard: async (id) => {
          if (id === 'snap-stuck') throw new AppError('internal_error', 'It cannot go either.')
          return gone.push(id) > 0
        },
      },
      files: { prune: async () => void gone.push('files') },
      ...{ db, limits, retentionMs: DAY_MS, logger, reach: () => {}, lookEveryMs: 20 },
    })
    housekeeping.start()
    const all = () => (gone.includes('files') ? true : undefined)
    await waitFor(all, { timeoutMs: 20_000, what: 'a round to reach its end' })
    await housekeeping.stop()
    expect(gone).toEqual(expect.arrayContaining(['cap-other', 'snap-other', 'files']))
    for (const stuck of ['build-stuck', 'snap-stuck']) expect(JSON.stringify(warnings)).toContain(stuck)
    const left = await db.selectFrom('template_builds').select('id').where('capsule_id', 'is not', null).execute()
    expect(left).toEqual([{ id: 'build-stuck' }])
  })
})
