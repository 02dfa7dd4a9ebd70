import type { Host } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import { recordHost } from '../../store/hosts.js'
import { shortageOf } from './shortage.js'

/** The id of the host that answers, once it is in the database; `undefined` when it does not answer now. */
export async function knownHostId(db: Db, host: Host): Promise<string | undefined> {
  if (host.id !== undefined) return host.id
  const status = await host.status().catch(() => undefined) // the reconciler finds out later
  if (status === undefined) return undefined
  await rememberHost(db, host, status)
  return host.id
}

/** The host of a row that may have been written before anybody knew it. */
export async function hostIdOf(
  db: Db,
  hosts: Hosts,
  { host_id: hostId }: { readonly host_id: string | null },
): Promise<string | undefined> {
  // The platform's own may have another id than before; of those that join the row says which one it is.
  if (hosts.only === undefined && hostId !== null) return hostId
  const [only, ...others] = hosts.all
  return only === undefined || others.length > 0 ? undefined : await knownHostId(db, only)
}

type Status = Awaited<ReturnType<Host['status']>>

/** Writes the host that has answered into the database, and its id into `host`, so that rows can refer to it. */
export async function rememberHost(db: Db, host: Host, status: Status): Promise<void> {
  const { agentVersion, engine } = status
  // Of one that has joined its certificate says who it is.
  const id = host.joinedId ?? status.hostId
  const memory = shortageOf(status.memoryAvailableBytes, status.memoryBytes)
  const pool = shortageOf(status.poolFreeBytes, status.poolBytes)
  const { cpus, memoryBytes, poolBytes, poolFreeBytes } = status
  const memoryMib = Number(memoryBytes / 1024n / 1024n)
  const poolFree = poolBytes === 0n ? 1 : Number(poolFreeBytes) / Number(poolBytes)
  await recordHost(db, { id, address: host.address, agentVersion, engine, cpus, memoryMib, poolFree, memory, pool })
  host.id = id
}
