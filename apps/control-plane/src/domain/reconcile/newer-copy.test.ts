import { create } from '@bufbuild/protobuf'
import { AppError, capsuleIds, hostIds, silentLogger } from '@wrenn/base'
import { type Capsule, CapsuleSchema } from '@wrenn/protocol/host'
import { sql } from 'kysely'
import { expect, it } from 'vitest'
import type { Host } from '../../host/host.js'
import type { HostCopy } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { findAnyCapsule, insertCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { recordHost } from '../../store/hosts.js'
import { addLeftover, beginStored, dropLeftover, finishStored, listLeftovers } from '../../store/stored-states.js'
import { createTeam } from '../../store/teams.js'
import { useDatabases } from '../../testing/databases.js'
import { Settler } from './settle.js'

const GENERATION = 7
const newDatabase = useDatabases()

function aHost(): Host {
  const { host } = linkHost('http://127.0.0.1:9', { joinedId: hostIds.create() })
  host.id = host.joinedId
  return host
}

/** A hibernated capsule whose state was stored in its generation 7, in which resumes have failed since. */
async function world() {
  const { db } = await newDatabase()
  const teamId = await createTeam(db, 'Test')
  const id = capsuleIds.create()
  await insertCapsule(db, {
    ...{
      id,
      team_id: teamId,
      template: 'minimal',
      vcpus: 1,
      memory_mib: 512,
      disk_size_mib: 1024,
      labels: '{}',
      envs: '{}',
    },
    ...{ state: 'hibernated', desired_state: 'paused' },
  })
  await sql`UPDATE capsules SET generation = 20, stored_state = 'state-1' WHERE id = ${id}`.execute(db)
  await beginStored(db, { id: 'state-1', team_id: teamId, capsule_id: id, sealed_by: 'v1.00000000.' })
  await finishStored(db, 'state-1', { bytes: 1, layers: [], generation: GENERATION })
  const mine = aHost()
  const has = { isShort: false, isScarce: false }
  const facts = { agentVersion: '1', engine: 'fake', cpus: 1, memoryMib: 1, poolFree: 1, memory: has, pool: has }
  await recordHost(db, { id: mine.id ?? '', address: mine.address, ...facts })
  const copy = (wakeAttempt: number, state = 'running'): Capsule =>
    create(CapsuleSchema, { capsuleId: id, state, wakeAttempt: BigInt(wakeAttempt) })
  /** What becomes of the row when the host says so, and the hosts have these. */
  const settled = async (seen: Capsule, has: readonly HostCopy[] | AppError) => {
    const copiesOf = async (): Promise<readonly HostCopy[]> => {
      if (has instanceof AppError) throw has
      return has
    }
    const settler = new Settler({ db, host: mine, copiesOf, logger: silentLogger, lostGraceMs: 1 })
    await settler.settle(await rowOf(db, id), seen)
    const { state, host_id, stored_state } = await rowOf(db, id)
    return [state, host_id, stored_state]
  }
  return { db, id, mine, copy, settled }
}

async function rowOf(db: Db, id: string) {
  const row = await findAnyCapsule(db, id)
  if (row === undefined) throw new Error('it is not there')
  return row
}

const STORED = ['hibernated', null, 'state-1']

for (const [told, state] of [
  ['running', 'running'],
  ['paused', 'paused'],
  ['error', 'error'],
] as const) {
  it(`a hibernated capsule is where a host fetched it later than the database knows: ${told}`, async () => {
    const { mine, copy, settled } = await world()
    const seen = copy(GENERATION + 1, told)
    expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual([state, mine.id, null])
  })
}

it('its life begins anew then, for nobody knows what it was given since', async () => {
  const { db, id, mine, copy, settled } = await world()
  const longAgo = new Date(Date.now() - 3_600_000)
  const life = { lifetime_sec: 600, on_end: 'pause', ends_at: longAgo } as const
  await db.updateTable('capsules').set(life).where('id', '=', id).execute()
  const seen = copy(GENERATION + 1)
  expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual(['running', mine.id, null])
  expect((await rowOf(db, id)).ends_at?.getTime()).toBeGreaterThan(Date.now())
})

it('it stays in the store where what a host has is from before', async () => {
  const { mine, copy, settled } = await world()
  for (const attempt of [0, GENERATION]) {
    const seen = copy(attempt)
    expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual(STORED)
  }
})

it('it stays in the store while another host has it of as late a fetch, and goes to that of the latest', async () => {
  const { mine, copy, settled } = await world()
  const seen = copy(9, 'paused')
  const other = (attempt: number) => ({ host: aHost(), capsule: copy(attempt) })
  for (const attempt of [9, 10])
    expect(await settled(seen, [{ host: mine, capsule: seen }, other(attempt)])).toEqual(STORED)
  expect(await settled(seen, [{ host: mine, capsule: seen }, other(8)])).toEqual(['paused', mine.id, null])
})

it('it stays in the store while a host that may have it does not answer', async () => {
  const { copy, settled } = await world()
  const silence = new AppError('host_unavailable', 'A host does not answer that may have it, too.')
  expect(await settled(copy(9), silence)).toEqual(STORED)
})

it('it stays in the store where the fetch failed as far as the database knows, or what came of it is freed', async () => {
  const { db, id, mine, copy, settled } = await world()
  const seen = copy(9, 'paused')
  expect(await settled(seen, [])).toEqual(STORED)
  await addLeftover(db, { state_id: 'state-1', capsule_id: id, host_id: mine.id ?? null, attempt: 9 })
  expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual(STORED)
})

it('it stays in the store while its host has yet to free what was stored from there, however late the fetch was that brought it', async () => {
  const { db, id, mine, copy, settled } = await world()
  const seen = copy(GENERATION + 30, 'paused')
  await addLeftover(db, { state_id: 'state-1', capsule_id: id, host_id: mine.id ?? null, attempt: 0 })
  expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual(STORED)
  // The host has said that what it has is not that.
  for (const leftover of await listLeftovers(db, mine.joinedId)) await dropLeftover(db, leftover)
  expect(await settled(seen, [{ host: mine, capsule: seen }])).toEqual(['paused', mine.id, null])
})
