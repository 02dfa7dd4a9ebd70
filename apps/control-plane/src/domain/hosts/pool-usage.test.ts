import { hostIds } from '@wrenn/base'
import { FakeHost } from '@wrenn/testkit'
import { expect, it } from 'vitest'
import { Hosts } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { createTeam } from '../../store/teams.js'
import { useDatabases } from '../../testing/databases.js'
import { whereaboutsIn } from './placement.js'
import { refreshPoolUsages } from './pool-usage.js'

const fresh = useDatabases()
/** No limits. */
const quota = { runningCapsules: 0, vcpus: 0, memoryMib: 0, poolBytes: 0, creatingCapsules: 0, apiCallsPerMin: 0 }

it('what several hosts hold is known without one that does not answer, and with it when it does', async () => {
  const { db } = await fresh()
  const team = await createTeam(db, 'A team')
  const hosts = Hosts.joining(whereaboutsIn(db, { isFresh: true }))
  const fakes = [await FakeHost.start(), await FakeHost.start()]
  const ids = fakes.map(() => hostIds.create())
  for (const [index, fake] of fakes.entries()) {
    fake.poolUsage = new Map([[team, BigInt(index + 1)]])
    hosts.add(linkHost(fake.address, { joinedId: ids[index] ?? '' }))
  }
  const held = fakes[1]?.holdNext('pool_usage')
  const usages = async (): Promise<number[]> => {
    const rows = await db.selectFrom('pool_usage').select('bytes').orderBy('bytes').execute()
    return rows.map(({ bytes }) => Number(bytes))
  }
  await refreshPoolUsages({ db, host: hosts, limits: { quota } })
  expect(await usages()).toEqual([1])
  // Nobody has given up its call: what it says now counts.
  held?.release()
  await expect.poll(usages, { timeout: 20_000 }).toEqual([1, 2])
  hosts.close()
  for (const fake of fakes) await fake[Symbol.asyncDispose]()
}, 60_000)
