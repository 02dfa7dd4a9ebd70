import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Capsule } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import type { HostCopy } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'
import { findStored, isLeftover } from '../../store/stored-states.js'

interface NewerCopyDeps {
  readonly db: Db
  readonly host: Host | undefined
  /** What all hosts have of a capsule. @throws AppError `host_unavailable` while one of them does not answer */
  readonly copiesOf: (capsuleId: string) => Promise<readonly HostCopy[]>
  readonly logger: Logger
}

/**
 * Whether a host has a newer state of a capsule than the one in the object store, which is the capsule as far as the database knows. That is so only
 * where the database was restored from before a resume: what fetched the state is later than all that the database knows, and no failed fetch
 * of it. A host is believed only when all of them have answered, and none has the capsule of as late a fetch or a later one.
 * @param row hibernated, read before its host was asked: a resume meanwhile makes any move of it a no-op
 * @returns what the host has now; `undefined` when it is not that, or not yet known to be
 */
export async function newerCopyOf(
  { db, host, copiesOf, logger }: NewerCopyDeps,
  row: CapsuleRow,
  seen: Capsule,
): Promise<Capsule | undefined> {
  if (host === undefined || row.state !== 'hibernated' || row.stored_state === null) return undefined
  const stored = await findStored(db, row.stored_state)
  const attempt = Number(seen.wakeAttempt)
  if (stored?.generation == null || attempt <= Number(stored.generation)) return undefined
  if (await isLeftover(db, host.joinedId, { capsule_id: row.id, attempt })) return undefined
  const facts = { capsuleId: row.id, attempt, hostState: seen.state }
  try {
    // What was freed since it was seen was a leftover then.
    const copies = await copiesOf(row.id)
    const mine = copies.find((copy) => copy.host === host)
    if (mine?.capsule.wakeAttempt !== seen.wakeAttempt) return undefined
    const rivals = copies.filter((copy) => copy !== mine && copy.capsule.wakeAttempt >= seen.wakeAttempt)
    if (rivals.length === 0) return mine.capsule
    const hosts = [host, ...rivals.map((copy) => copy.host)].map(({ joinedId, address }) => joinedId ?? address)
    logger.error({ ...facts, hosts }, 'capsule.claimed_by_several_hosts')
  } catch (error) {
    if (!AppError.is(error, 'host_unavailable', 'timeout')) throw error
    logger.warn({ ...facts, error: errorText(error) }, 'capsule.newer_on_host_perhaps')
  }
  return undefined
}
