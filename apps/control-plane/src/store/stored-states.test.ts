import { capsuleIds } from '@wrenn/base'
import { sql } from 'kysely'
import { expect, it } from 'vitest'
import { useDatabases } from '../testing/databases.js'
import { insertCapsule } from './capsules.js'
import { type Db, migrateDownTo, openDatabase } from './database.js'
import { beginCollecting, beginStored, endCollecting, finishStored, isStoringHeld } from './stored-states.js'
import { createTeam } from './teams.js'

const newDatabase = useDatabases()

async function addCapsule(db: Db, state: 'hibernated' | 'pausing'): Promise<string> {
  const id = capsuleIds.create()
  const teamId = await createTeam(db, 'Test')
  const size = { template: 'minimal', vcpus: 1, memory_mib: 512, disk_size_mib: 1024 }
  await insertCapsule(db, { ...size, id, team_id: teamId, labels: '{}', envs: '{}', state, desired_state: 'paused' })
  return id
}

it('what is there in vain is collected also of a team that stores all the time, which then goes on', async () => {
  const { db } = await newDatabase()
  const team = { team_id: 'team-1', sealed_by: 'v1.00000000.' }
  const begin = async (id: string) => (await beginStored(db, { ...team, id, capsule_id: id })) !== undefined
  const finish = async (id: string) => await finishStored(db, id, { bytes: 1, layers: [], generation: 1 })
  const collect = async () => (await beginCollecting(db, team, 60_000))?.states
  const waitedFor = async (minutes: number) =>
    await sql`UPDATE stored_teams SET waits_since = now() - ${minutes} * interval '1 minute'`.execute(db)

  expect([await begin('a'), await collect(), await begin('b')]).toEqual([true, undefined, true])
  expect(await isStoringHeld(db, team)).toBe(false)
  await waitedFor(20)
  expect(await isStoringHeld(db, team)).toBe(true)
  // Whoever has begun goes on, also when it is taken over.
  expect([await begin('c'), await begin('a')]).toEqual([false, true])
  await finish('a')
  expect(await collect()).toBeUndefined()
  // One that never ends holds nobody up for ever.
  await waitedFor(50)
  expect(await begin('c')).toBe(true)
  expect(await collect()).toBeUndefined()
  expect(await begin('d')).toBe(true)
  await waitedFor(20)
  for (const id of ['b', 'c', 'd']) await finish(id)
  expect((await collect())?.toSorted()).toEqual(['a', 'b', 'c', 'd'])
  expect([await begin('e'), await isStoringHeld(db, team)]).toEqual([false, false])
  await endCollecting(db, team, true)
  expect(await begin('e')).toBe(true)
})

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
