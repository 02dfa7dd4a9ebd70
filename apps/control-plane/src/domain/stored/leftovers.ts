import { errorText, type Logger } from '@wrenn/base'
import type { Host } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import type { StateLeftoverRow } from '../../store/schema.js'
import { dropLeftover, listLeftovers } from '../../store/stored-states.js'

const FREE_TIMEOUT_MS = 60_000

interface LeftoverDeps {
  readonly db: Db
  readonly logger: Logger
}

/** The host by what a row says; `undefined` while it is not known here. */
export function hostOfRow(hosts: Hosts, hostId: string | null): Host | undefined {
  return hosts.only ?? (hostId === null ? undefined : hosts.get(hostId))
}

/**
 * Has a host free what it still has of capsules that went into the object store: it does so only where that is exactly what was stored.
 * @throws what the host says
 */
export async function freeLeftovers({ db, logger }: LeftoverDeps, host: Host, capsuleId?: string): Promise<void> {
  const leftovers = await listLeftovers(db, host.joinedId, capsuleId)
  const free = async (leftover: StateLeftoverRow): Promise<void> => {
    const { capsule_id, state_id: stateId, attempt } = leftover
    const request = { capsuleId: capsule_id, stateId, attempt: BigInt(attempt) }
    const { existed } = await host.call((client) => client.freeCapsule(request, { timeoutMs: FREE_TIMEOUT_MS }))
    await dropLeftover(db, leftover)
    logger.info({ capsuleId: capsule_id, stateId, existed }, 'capsule.leftover_freed')
  }
  // One that cannot be freed now keeps no other from it.
  for (const outcome of await Promise.allSettled(leftovers.map(free))) {
    if (outcome.status === 'rejected') throw outcome.reason
  }
}

/** The same, for whoever does not need it: a host that cannot now is asked again by its reconciler. */
export async function tryToFree(
  deps: LeftoverDeps,
  hosts: Hosts,
  hostId: string | null,
  capsuleId: string,
): Promise<void> {
  const host = hostOfRow(hosts, hostId)
  if (host === undefined) return
  await freeLeftovers(deps, host, capsuleId).catch((error: unknown) => {
    deps.logger.warn({ capsuleId, error: errorText(error) }, 'capsule.not_freed_yet')
  })
}
