import { capsuleIds } from '@wrenn/base'
import { capsuleCommands, capsuleStates, nextState } from '@wrenn/protocol'
import { type TestPostgres, testPostgresKinds } from '@wrenn/testkit'
import { type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freshDatabase } from '../testing/harness.js'
import { insertCapsule, pruneEnded, transition } from './capsules.js'
import { type Db, migrateDown, migrateUp, openDatabase } from './database.js'
import { createTeam } from './teams.js'

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

  it('migrates up, down to nothing, and up again; several at once do not disturb each other', async () => {
    await migrateUp(db)
    await migrateDown(db)
    const left = await sql<{ table_name: string }>`SELECT table_name FROM information_schema.tables
      WHERE table_schema = 'public' AND table_name NOT LIKE 'kysely%'`.execute(db)
    expect(left.rows).toEqual([])
    await Promise.all([migrateUp(db), migrateUp(db), migrateUp(db)])
    expect(await createTeam(db, 'A team')).toMatch(/^team-/)
  })

  it('lets a migration take longer than a request may', async () => {
    const slow = openDatabase({ url: await freshDatabase(postgres.url), statementTimeoutMs: 200 })
    try {
      await expect(sql`SELECT pg_sleep(1)`.execute(slow)).rejects.toThrow('statement timeout')
      const up = async (tx: Kysely<unknown>) => void (await sql`SELECT pg_sleep(1)`.execute(tx))
      await migrateUp(slow, { '0001-slow': { up } })
      await expect(sql`SELECT pg_sleep(1)`.execute(slow)).rejects.toThrow('statement timeout')
    } finally {
      await slow.destroy()
    }
  })

  it('forgets capsules that ended long ago, and no others', async () => {
    const teamId = await createTeam(db, 'Retention')
    const old = sql<Date>`now() - interval '31 days'`
    const add = async (state: 'stopped' | 'error' | 'running', more: object = {}): Promise<string> => {
      const base = { team_id: teamId, template: 'minimal', vcpus: 1, memory_mib: 512, disk_size_mib: 1024 }
      const row = { ...base, id: capsuleIds.create(), timeout_sec: 0, labels: '{}', envs: '{}', state, ...more }
      return (await insertCapsule(db, { ...row, default_user: '', default_cwd: '', desired_state: 'stopped' })).id
    }
    await add('stopped', { updated_at: old })
    await add('error', { updated_at: old, observed_state: 'absent' })
    const kept = [
      await add('stopped'),
      await add('error', { updated_at: old, observed_state: 'error' }),
      await add('running', { updated_at: old }),
    ]
    expect(await pruneEnded(db, 30 * 24 * 3600 * 1000, 100)).toBe(2)
    const left = await db.selectFrom('capsules').select('id').where('team_id', '=', teamId).orderBy('seq').execute()
    expect(left.map(({ id }) => id)).toEqual(kept)
  })

  it('moves a capsule exactly as the lifecycle table says, from every state by every command', async () => {
    const teamId = await createTeam(db, 'States')
    for (const state of capsuleStates) {
      for (const command of capsuleCommands) {
        const row = await insertCapsule(db, {
          id: capsuleIds.create(),
          team_id: teamId,
          template: 'minimal',
          vcpus: 1,
          memory_mib: 512,
          disk_size_mib: 1024,
          state,
          desired_state: 'running',
        })
        const moved = await transition(db, row, command)
        expect(moved?.state, `${state} ${command}`).toBe(nextState(state, command))
        if (moved !== undefined) expect(moved.generation).toBe(row.generation + 1)
      }
    }
  })

  it('lets only one of several change a capsule', async () => {
    const teamId = await createTeam(db, 'Race')
    const row = await insertCapsule(db, {
      id: capsuleIds.create(),
      team_id: teamId,
      template: 'minimal',
      vcpus: 1,
      memory_mib: 512,
      disk_size_mib: 1024,
      state: 'running',
      desired_state: 'running',
    })
    const results = await Promise.all([1, 2, 3, 4].map(() => transition(db, row, 'destroy')))
    expect(results.filter((result) => result !== undefined)).toHaveLength(1)
  })
})
