import { capsuleIds } from '@wrenn/base'
import { sql } from 'kysely'
import { expect, it } from 'vitest'
import { useDatabases } from '../testing/databases.js'
import { insertCapsule } from './capsules.js'
import { type Db, migrateDownTo, openDatabase } from './database.js'
import { createTeam } from './teams.js'

const newDatabase = useDatabases()

async function addCapsule(db: Db, state: 'hibernated' | 'pausing'): Promise<string> {
  const id = capsuleIds.create()
  const teamId = await createTeam(db, 'Test')
  const size = { template: 'minimal', vcpus: 1, memory_mib: 512, disk_size_mib: 1024 }
  await insertCapsule(db, { ...size, id, team_id: teamId, labels: '{}', envs: '{}', state, desired_state: 'paused' })
  return id
}

it('a capsule that is fetched out of the store counts as awake only when it is there', async () => {
  const { db } = await newDatabase()
  const id = await addCapsule(db, 'hibernated')
  const held = async (): Promise<string[]> =>
    (
      await sql<{ state: string }>`SELECT state FROM usage_ledger WHERE capsule_id = ${id} ORDER BY id`.execute(db)
    ).rows.map(({ state }) => state)
  await sql`UPDATE capsules SET stored_state = 'state-1' WHERE id = ${id}`.execute(db)
  await sql`UPDATE capsules SET state = 'resuming' WHERE id = ${id}`.execute(db)
  expect(await held()).toEqual(['hibernated'])
  await sql`UPDATE capsules SET stored_state = NULL WHERE id = ${id}`.execute(db)
  await sql`UPDATE capsules SET state = 'running' WHERE id = ${id}`.execute(db)
  expect(await held()).toEqual(['hibernated', 'resuming', 'running'])
})

it('a capsule that was being paused to hibernate is paused by a version that knows no hibernation', async () => {
  const { db, url } = await newDatabase()
  const id = await addCapsule(db, 'pausing')
  await sql`INSERT INTO operations (id, team_id, capsule_id, kind, state, generation, idempotency_key, request_hash, params, lease_until)
    SELECT 'op-1', team_id, id, 'hibernate', 'running', 1, 'key', 'hash', '{"stateId": "state-1"}', now() FROM capsules`.execute(
    db,
  )
  await db.destroy() // no control plane may be there
  const older = openDatabase({ url, application: 'wrenn-command-line' })
  await migrateDownTo(older, '0045-host-tags')
  const { rows } = await sql`SELECT kind, state, params FROM operations WHERE capsule_id = ${id}`.execute(older)
  await older.destroy()
  expect(rows).toEqual([{ kind: 'pause', state: 'running', params: { reason: 'request' } }])
})
