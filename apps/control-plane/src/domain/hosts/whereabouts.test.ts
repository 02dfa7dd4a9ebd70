import { capsuleIds, hostIds, silentLogger } from '@wrenn/base'
import { expect, it } from 'vitest'
import { fromHostError, isConnectionLoss } from '../../host/errors.js'
import { Hosts } from '../../host/hosts.js'
import { linkHost } from '../../host/link.js'
import { openDatabase } from '../../store/database.js'
import { whereaboutsIn } from './placement.js'

it('a call says that the database does not answer when that cannot say where its capsule is, and is worth another try', async () => {
  const db = openDatabase({ url: 'postgres://nobody@127.0.0.1:9/none', logger: silentLogger })
  const hosts = Hosts.joining(whereaboutsIn(db, { isFresh: true }))
  hosts.add(linkHost('http://127.0.0.1:9', { joinedId: hostIds.create() }))
  const thrown: unknown = await hosts.client.getCapsule({ capsuleId: capsuleIds.create() }).catch((error) => error)
  expect([fromHostError(thrown).code, isConnectionLoss(thrown)]).toEqual(['database_unavailable', true])
  hosts.close()
  await db.destroy()
})
