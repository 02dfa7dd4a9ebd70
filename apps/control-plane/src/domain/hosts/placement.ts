import { AppError } from '@wrenn/base'
import type { Host } from '../../host/host.js'
import { type Hosts, noHost, type Whereabouts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import { findHostOfCapsule, findHostOfSnapshot, goneAmong } from '../../store/hosts.js'
import { countCapsulesByHost } from '../../store/joined-hosts.js'
import { knownHostId } from './known-host.js'

/** Where things are, as the database has it. */
export function whereaboutsIn(db: Db): Whereabouts {
  return {
    hostOf: ({ kind, id }) => (kind === 'capsule' ? findHostOfCapsule(db, id) : findHostOfSnapshot(db, id)),
    isGone: async (hostId) => (await goneAmong(db, [hostId])).has(hostId),
  }
}

/** What a capsule is made from where only one host has that. */
interface Origin {
  /** The host of its snapshot, or of an image that was fetched for it. */
  readonly host_id: string | null
}

/**
 * The host of a capsule that is to be made: the one that has what it is made from, else the one with the fewest capsules.
 * @returns `null` where there is but one, which has not said yet who it is
 * @throws AppError `host_unavailable`
 */
export async function placeCapsule(db: Db, hosts: Hosts, origin?: Origin): Promise<string | null> {
  if (hosts.only !== undefined) return hosts.only.id ?? null
  if (origin?.host_id) return origin.host_id
  return await freestHost(db, hosts)
}

/** A host for work that any may do, such as fetching an image. @throws AppError `host_unavailable` */
export async function anyHost(db: Db, hosts: Hosts): Promise<Host> {
  const host = hosts.only ?? hosts.get(await freestHost(db, hosts))
  if (host === undefined) throw noHost()
  return host
}

async function freestHost(db: Db, hosts: Hosts): Promise<string> {
  const { all } = hosts
  if (all.length === 0) throw noHost()
  const heard = all.filter(({ isSilent }) => !isSilent)
  const ids = (await Promise.all(heard.map((host) => knownHostId(db, host)))).flatMap((id) => id ?? [])
  const counts = await countCapsulesByHost(db, ids)
  const [freest] = ids.sort((a, b) => (counts.get(a) ?? 0) - (counts.get(b) ?? 0))
  if (freest === undefined) throw new AppError('host_unavailable', 'No host answers now.')
  return freest
}
