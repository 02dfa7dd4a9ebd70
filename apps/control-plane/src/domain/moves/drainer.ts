import { AppError, errorText, type Logger } from '@wrenn/base'
import { writeAudit } from '../../store/audit.js'
import { findAnyCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import {
  claimDrain,
  dropUncordonedDrain,
  findDrain,
  listDrained,
  listDue,
  refreshDrained,
  releaseDrain,
  setDone,
  setDrainEnded,
  setFailed,
  setMoving,
} from '../../store/host-drains.js'
import { findJoinedHost } from '../../store/joined-hosts.js'
import { findOperation } from '../../store/operations.js'
import type { CapsuleRow, DrainedCapsuleRow, HostDrainRow } from '../../store/schema.js'
import { mayHaveSavedState } from '../capsules/index.js'
import { hostEntry } from '../hosts/index.js'
import { Rounds } from '../rounds.js'
import type { Moves } from './moves.js'

const LOOK_EVERY_MS = 1_000
/** Longer than a look takes; whoever dies in the middle of one keeps others from it that long. */
const CLAIM_MS = 30_000
const FIRST_AGAIN_MS = 10_000
const MAX_AGAIN_MS = 300_000

interface DrainerDeps {
  readonly db: Db
  readonly moves: Pick<Moves, 'begin'>
  readonly logger: Logger
  /** @default 1 s */
  readonly everyMs?: number
  /** How long a capsule that could not be moved is left alone, twice as long after every failure. @default 10 s */
  readonly firstAgainMs?: number
}

/**
 * Has what is on hosts that are to be emptied moved, so many at a time. All that it goes by is in the database: control planes take turns, and each begins where the
 * last one was. A move that was begun and not noted is found by beginning it again, which joins it.
 */
export class Drainer extends Rounds {
  readonly #deps: DrainerDeps

  constructor(deps: DrainerDeps) {
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'drainer.retry')
    super(() => this.#lookAtAll(), deps.everyMs ?? LOOK_EVERY_MS, onFailure)
    this.#deps = deps
  }

  /** Looks once at each that nobody else looks at. */
  async #lookAtAll(): Promise<void> {
    const { db, everyMs = LOOK_EVERY_MS } = this.#deps
    while (!this.signal.aborted) {
      const drain = await claimDrain(db, CLAIM_MS)
      if (drain === undefined) return
      try {
        if (!(await this.#dropUncordoned(drain))) await this.#goOn(drain)
      } finally {
        await releaseDrain(db, drain.host_id, everyMs)
      }
    }
  }

  /** A control plane of the version before, which still runs during an upgrade, uncordons a host and leaves its drain. */
  async #dropUncordoned({ host_id: hostId }: HostDrainRow): Promise<boolean> {
    const { db } = this.#deps
    if ((await findJoinedHost(db, hostId))?.cordoned_at !== null) return false
    return await db.transaction().execute(async (tx) => {
      const isDropped = await dropUncordonedDrain(tx, hostId)
      if (isDropped) await writeAudit(tx, hostEntry('host.stop_drain', hostId, undefined))
      return isDropped
    })
  }

  async #goOn(drain: HostDrainRow): Promise<void> {
    const { db, logger } = this.#deps
    const { host_id: hostId } = drain
    for (const each of await listDrained(db, hostId, ['moving'])) await this.#look(each)
    await refreshDrained(db, hostId)
    const under = (await listDrained(db, hostId, ['moving'])).length
    for (const each of await listDue(db, hostId, Math.max(0, drain.concurrency - under))) {
      // Somebody may have stopped it, or uncordoned the host.
      if (this.signal.aborted || (await findDrain(db, hostId)) === undefined) return
      await this.#begin(drain, each)
    }
    const left = await listDrained(db, hostId, ['waiting', 'moving', 'failed'])
    const isNews = await db.transaction().execute(async (tx) => {
      const changed = await setDrainEnded(tx, hostId, left.length === 0)
      if (changed && left.length === 0) await writeAudit(tx, hostEntry('host.drained', hostId, undefined))
      return changed
    })
    if (isNews) logger.info({ hostId, left: left.length }, left.length === 0 ? 'host.drained' : 'host.drains_again')
  }

  /** What has come of one that was on its way. */
  async #look(each: DrainedCapsuleRow): Promise<void> {
    const { db } = this.#deps
    const move = each.operation_id === null ? undefined : await findOperation(db, each.operation_id)
    if (move?.state === 'running') return
    const row = await findAnyCapsule(db, each.capsule_id)
    const isThere = row?.host_id === each.host_id && !isOver(row)
    // One that ran and that no host could have: nobody wakes it, so somebody must be told.
    if (!isThere) await setDone(db, each, row?.state === 'hibernated' ? (move?.error ?? undefined) : undefined)
    else await this.#failed(each, move?.error ?? { code: 'conflict', message: 'It came back to this host.' })
  }

  async #begin(drain: HostDrainRow, each: DrainedCapsuleRow): Promise<void> {
    const { db, moves } = this.#deps
    try {
      const { id } = await moves.begin(each.capsule_id, { actor: drain.actor ?? undefined })
      await setMoving(db, each, id)
    } catch (error) {
      if (!AppError.is(error) || AppError.is(error, 'database_unavailable')) throw error
      // It is forgotten already.
      if (AppError.is(error, 'capsule_not_found')) await setDone(db, each)
      else await this.#failed(each, error)
    }
  }

  async #failed(each: DrainedCapsuleRow, { code, message }: { readonly code: string; readonly message: string }) {
    const { db, logger, firstAgainMs = FIRST_AGAIN_MS } = this.#deps
    const againMs = Math.min(firstAgainMs * 2 ** Math.min(each.attempts, 10), MAX_AGAIN_MS)
    await setFailed(db, each, { code, message, againMs })
    logger.warn({ hostId: each.host_id, capsuleId: each.capsule_id, code, error: message }, 'capsule.not_moved')
  }
}

/** Its host has nothing of it that could go on. */
function isOver(row: CapsuleRow): boolean {
  return row.state === 'stopped' || (row.state === 'error' && !mayHaveSavedState(row))
}
