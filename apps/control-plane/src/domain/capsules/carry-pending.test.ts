import { capsuleIds, hostIds, type Logger, silentLogger } from '@wrenn/base'
import { FakeHost } from '@wrenn/testkit'
import { expect, it } from 'vitest'
import { Hosts } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { findAnyCapsule, insertCapsule, patchCapsule } from '../../store/capsules.js'
import { createTeam } from '../../store/teams.js'
import { useDatabases } from '../../testing/databases.js'
import { whereaboutsIn } from '../hosts/index.js'
import { Keyring, TeamSecrets } from '../secrets/index.js'
import { Egress } from './egress.js'

const fresh = useDatabases()
/** More than are carried to a host at once. */
const MANY = 10

it('pending egress of a host that does not answer keeps that of no other waiting', async () => {
  const { db } = await fresh()
  const [slow, other] = [await FakeHost.start(), await FakeHost.start()]
  const hosts = Hosts.joining(whereaboutsIn(db, { isFresh: true }))
  const teamId = await createTeam(db, 'A team')
  const joined = async (fake: FakeHost): Promise<string> => {
    const id = hostIds.create()
    const seen = { address: fake.address, agent_version: '1', engine: 'fake', last_seen_at: new Date() }
    await db
      .insertInto('hosts')
      .values({ id, ...seen })
      .execute()
    hosts.add(linkHost(fake.address, { joinedId: id }))
    return id
  }
  const pendingOn = async (hostId: string): Promise<string> => {
    const id = capsuleIds.create()
    await insertCapsule(db, {
      ...{ id, team_id: teamId, template: 'minimal', state: 'running', desired_state: 'running', host_id: hostId },
      ...{ vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0, labels: '{}', envs: '{}' },
      ...{ default_user: '', default_cwd: '', observed_state: 'running' },
    })
    await hosts.client.createCapsule({ capsuleId: id, template: 'minimal', vcpus: 1, memoryMib: 64 })
    await patchCapsule(db, id, { egress_revision: 1 })
    return id
  }
  const failed: string[] = []
  const note = (fields: object | string): void => void failed.push(JSON.stringify(fields))
  const logger: Logger = { ...silentLogger, debug: note, warn: note }
  const [slowId, otherId] = [await joined(slow), await joined(other)]
  const held = Array.from({ length: MANY }, () => slow.holdNext('egress'))
  for (let n = 0; n < MANY; n++) await pendingOn(slowId)
  const keyring = new Keyring([])
  const secrets = new TeamSecrets({ db, keyring, logger })
  const egress = new Egress({ db, host: hosts, logger, keyring, secrets, lookEveryMs: 20 })
  egress.start()
  await held[0]?.reached
  const id = await pendingOn(otherId)
  await expect.poll(async () => (await findAnyCapsule(db, id))?.egress_in_force, { timeout: 20_000 }).toBe(1)
  // Nobody has given up the slow one meanwhile: its calls are still open.
  expect(failed).toEqual([])

  for (const { release } of held) release()
  const pending = db.selectFrom('capsules').select('id').where('egress_in_force', '=', 0)
  await expect.poll(async () => await pending.execute(), { timeout: 60_000 }).toEqual([])
  await egress.stop()
  hosts.close()
  for (const fake of [slow, other]) await fake[Symbol.asyncDispose]()
}, 120_000)
