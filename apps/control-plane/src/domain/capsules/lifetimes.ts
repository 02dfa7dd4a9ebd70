import { AppError, errorText, type Logger } from '@wrenn/base'
import { audited } from '../../store/audit.js'
import { lockCapsule } from '../../store/capsules.js'
import { type Db, inTransaction } from '../../store/database.js'
import { type EndedLife, extendEnd, findEnded, setEnd } from '../../store/lifetimes.js'
import type { Actor, CapsuleRow } from '../../store/schema.js'
import { Rounds } from '../rounds.js'
import type { Capsules } from './capsules.js'
import type { Lifecycle } from './lifecycle.js'
import { needCapsule } from './need-capsule.js'

const TICK_MS = 1_000
/** Ended in one round: each is some writes here and work for its host. */
const BATCH = 50
const BACKOFF = { firstMs: 5_000, maxMs: 10 * 60_000 }
const REASON = 'lifetime'

interface LifetimesDeps {
  readonly db: Db
  readonly capsules: Pick<Capsules, 'destroy'>
  readonly lifecycle: Pick<Lifecycle, 'pause'>
  readonly logger: Logger
  /** @default 1000 */
  readonly tickMs?: number
}

/**
 * Ends the lives of capsules that have one of a certain length, whether they are used or not. All it goes by is in the database, so a restart
 * forgets none, and of several control planes one ends each: whether it is still over is looked at under the row's lock.
 */
export class Lifetimes {
  readonly #deps: LifetimesDeps
  readonly #rounds: Rounds

  constructor(deps: LifetimesDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'lifetimes.retry')
    this.#rounds = new Rounds(() => this.#look(), deps.tickMs ?? TICK_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for the round that is under way. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /**
   * Lets a capsule end `lifetimeSec` from now; one without an end is paused then.
   * @returns the capsule as it is now; where it has no end (`hasEnd`), nothing was changed
   * @throws AppError `capsule_not_found`
   */
  async set(teamId: string, id: string, lifetimeSec: number, actor: Actor): Promise<CapsuleRow> {
    return await this.#changed(teamId, id, actor, (tx) => setEnd(tx, id, lifetimeSec))
  }

  /** The same for an end no sooner than `lifetimeSec` from now; one without an end keeps none. */
  async extend(teamId: string, id: string, lifetimeSec: number, actor: Actor): Promise<CapsuleRow> {
    return await this.#changed(teamId, id, actor, (tx) => extendEnd(tx, id, lifetimeSec))
  }

  /** Under the lock of its row, so that what is told is what was found when the change was made, or was not. */
  async #changed(
    teamId: string,
    id: string,
    actor: Actor,
    change: (tx: Db) => Promise<CapsuleRow | undefined>,
  ): Promise<CapsuleRow> {
    return await inTransaction(this.#deps.db, async (tx) => {
      await lockCapsule(tx, id)
      const row = await needCapsule(tx, teamId, id)
      const changed = await audited(tx, change, ({ ends_at: endsAt }) => ({
        teamId,
        actor,
        action: 'capsule.update',
        resource: { type: 'capsule', id },
        details: { fields: 'ends_at', ends_at: endsAt?.toISOString() },
      }))
      return changed ?? row
    })
  }

  async #look(): Promise<void> {
    for (const capsule of await findEnded(this.#deps.db, BATCH, BACKOFF)) {
      if (this.#rounds.signal.aborted) return
      await this.#end(capsule)
    }
  }

  async #end({ id, team_id: teamId, on_end: onEnd }: EndedLife): Promise<void> {
    const { capsules, lifecycle, logger } = this.#deps
    const how = { reason: REASON, waitMs: 0, onlyIf: isOver } as const
    try {
      if (onEnd === 'kill') await capsules.destroy(teamId, id, how)
      else await lifecycle.pause(teamId, id, how)
      logger.info({ capsuleId: id, onEnd }, 'capsule.life_ended')
    } catch (error) {
      // Given more time, or moved by somebody else, since the look.
      if (AppError.is(error, 'conflict', 'invalid_state', 'capsule_not_found')) return
      logger.warn({ capsuleId: id, error: errorText(error) }, 'capsule.end_failed')
    }
  }
}

function isOver({ state, ends_at: endsAt, on_end: onEnd }: CapsuleRow): boolean {
  const isThere = state === 'running' || (state === 'error' && onEnd === 'kill')
  return isThere && endsAt !== null && endsAt.getTime() <= Date.now()
}
