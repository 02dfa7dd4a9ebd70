import { AppError, capsuleIds, hostIds } from '@wrenn/base'
import { expect, it } from 'vitest'
import { Hosts } from '../../host/hosts.js'
import { insertCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { lockHost } from '../../store/placement.js'
import { createTeam } from '../../store/teams.js'
import { useDatabases } from '../../testing/databases.js'
import { Placement, whereaboutsIn } from './placement.js'

const fresh = useDatabases()
const share = { vcpusPerCpu: 1, memoryPercent: 100, placement: 'spread' } as const
const wanted = { vcpus: 1, memoryMib: 512, template: 'minimal' }

async function joined(db: Db, cpus: number): Promise<string> {
  const [id, now] = [hostIds.create(), new Date()]
  const seen = { id, address: `${id}:7443`, agent_version: '0.1.0', engine: 'fake', cpus, memory_mib: 65_536 }
  await db.insertInto('hosts').values(seen).execute()
  const row = { id, address: `${id}:7443`, created_by: 'test', created_at: now, updated_at: now }
  await db.insertInto('joined_hosts').values(row).execute()
  await db.updateTable('joined_hosts').set({ joined_at: now }).where('id', '=', id).execute()
  return id
}

const codeOf = (error: unknown): string => AppError.from(error).code

it('of many hosts is made by what was seen of them a moment ago, and overfills none, whoever else chooses', async () => {
  const { db } = await fresh()
  const teamId = await createTeam(db, 'A team')
  const ids = [await joined(db, 8), await joined(db, 8), await joined(db, 8)]
  const hosts = Hosts.joining(whereaboutsIn(db, { isFresh: true }))
  // Two of them know many hosts by what they keep, and one looks at all each time, as another version would.
  const [one, two, few] = [2, 2, 100].map((manyHosts) => new Placement({ db, hosts, share, manyHosts }))
  const make = async (placement: Placement | undefined): Promise<string> =>
    await db.transaction().execute(async (tx) => {
      const { hostId = null, because } = (await placement?.place(tx, wanted)) ?? {}
      expect(because).toMatch(/free, of \d hosts/)
      await insertCapsule(tx, {
        ...{
          id: capsuleIds.create(),
          team_id: teamId,
          host_id: hostId,
          template: 'minimal',
          vcpus: 1,
          memory_mib: 512,
        },
        ...{ disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}', default_user: '', default_cwd: '' },
        ...{ state: 'pending', desired_state: 'running' },
      })
      return String(hostId)
    })
  const all = await Promise.allSettled(Array.from({ length: 60 }, (_, n) => make([one, two, few][n % 3])))
  const counts = new Map<string, number>()
  for (const each of all) {
    if (each.status === 'fulfilled') counts.set(each.value, (counts.get(each.value) ?? 0) + 1)
    else expect(each.reason).toMatchObject({ code: 'no_hosts_available' })
  }
  expect(Object.fromEntries(counts)).toEqual(Object.fromEntries(ids.map((id) => [id, 8])))

  // What ended elsewhere is found before anybody is refused.
  await db
    .updateTable('capsules')
    .set({ state: 'stopped' })
    .where('host_id', '=', ids[1] ?? '')
    .execute()
  await expect.poll(() => make(two).catch(codeOf), { timeout: 10_000 }).toBe(ids[1])
  await db
    .updateTable('joined_hosts')
    .set({ cordoned_at: new Date() })
    .where('id', '=', ids[1] ?? '')
    .execute()
  expect(await make(two).catch(codeOf)).toBe('no_hosts_available')
  hosts.close()
}, 60_000)

it('passes over a host that somebody else gives something just now, while there is another one', async () => {
  const { db } = await fresh()
  const [large, small] = [await joined(db, 8), await joined(db, 2)]
  const hosts = Hosts.joining(whereaboutsIn(db, { isFresh: true }))
  const placement = new Placement({ db, hosts, share, manyHosts: 1 })
  const place = async (size: object = {}) =>
    (await db.transaction().execute((tx) => placement.place(tx, { ...wanted, ...size }))).hostId
  expect(await place()).toBe(large)
  let waiting: Promise<string | null> | undefined
  await db.transaction().execute(async (tx) => {
    await lockHost(tx, large)
    expect(await place()).toBe(small)
    // There is no other one for this.
    waiting = place({ vcpus: 4 })
    expect(await Promise.race([waiting, new Promise((resolve) => setTimeout(resolve, 200, 'waits'))])).toBe('waits')
  })
  expect(await waiting).toBe(large)
  hosts.close()
}, 60_000)
