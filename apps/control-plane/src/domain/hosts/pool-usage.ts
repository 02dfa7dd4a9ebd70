import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { Limits } from '../../config.js'
import type { Host } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import { recordPoolUsage } from '../../store/usage.js'
import { knownHostId } from './known-host.js'

const USAGE_TIMEOUT_MS = 5_000
/** For one of several hosts. */
const WAIT_MS = 1_000

interface HostUsageDeps {
  readonly db: Db
  readonly host: Host
  readonly limits: Pick<Limits, 'quota'>
}

/** Whom to ask, and where to keep the answers. */
export interface PoolUsageDeps extends Omit<HostUsageDeps, 'host'> {
  readonly host: Hosts
}

/**
 * The same of all hosts at once, but for those that nothing was heard of for long. Of several each is asked by itself: one that does not answer within a
 * second is not waited for, and what it says later is written then.
 */
export async function refreshPoolUsages({ host: hosts, ...deps }: PoolUsageDeps): Promise<void> {
  const heard = hosts.all.filter(({ isSilent }) => !isSilent)
  const asked = heard.map((host) => refreshPoolUsage({ ...deps, host }))
  const all = Promise.all(asked)
  if (heard.length < 2) return void (await all)
  const timeUp = new AbortController()
  const late = delay(WAIT_MS, undefined, { signal: timeUp.signal, ref: false }).catch(() => {}) // all have answered
  try {
    await Promise.race([all, late])
  } finally {
    timeUp.abort()
    all.catch(() => {}) // nobody waits for it any more: the next comparison asks again
  }
}

/**
 * Takes over what a host says that each team takes of its pool. One that has just started and has not measured yet, or is
 * silent, leaves what it said last.
 */
export async function refreshPoolUsage({ db, host, limits }: HostUsageDeps): Promise<void> {
  try {
    const { measured, teams } = await host.call((client) => client.getPoolUsage({}, { timeoutMs: USAGE_TIMEOUT_MS }))
    const hostId = await knownHostId(db, host)
    if (!measured || hostId === undefined) return
    await recordPoolUsage(
      db,
      hostId,
      teams.map(({ teamId, bytes }) => ({ teamId, bytes: Number(bytes) })),
      limits.quota.poolBytes,
    )
  } catch (error) {
    if (!AppError.is(error, 'host_unavailable', 'timeout')) throw error
  }
}
