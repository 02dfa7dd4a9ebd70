import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { findRested } from '../../store/idle.js'
import type { CapsuleRow } from '../../store/schema.js'
import { Rounds } from '../rounds.js'
import type { Lifecycle } from './lifecycle.js'

const LOOK_EVERY_MS = 10_000
/** Under way at a time, those that somebody asked for too: each reads and sends a whole state, and takes memory of its host agent for that. */
const MAX_AT_ONCE = 4
const BACKOFF = { firstMs: 60_000, maxMs: 6 * 3600_000 }

interface HibernatorDeps {
  readonly db: Db
  readonly lifecycle: Pick<Lifecycle, 'hibernate'>
  readonly logger: Logger
  /** How long a capsule is paused before. */
  readonly afterSec: number
  /** @default 10 s */
  readonly everyMs?: number
}

/** Lets capsules hibernate that have been paused for long. All that it goes by is in the database, so several control planes may do it at once. */
export class Hibernator {
  readonly #deps: HibernatorDeps
  readonly #rounds: Rounds

  constructor(deps: HibernatorDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'hibernator.retry')
    this.#rounds = new Rounds(() => this.look(), deps.everyMs ?? LOOK_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for the round that is under way. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /** Looks once. */
  async look(): Promise<void> {
    const { db, afterSec } = this.#deps
    for (const capsule of await findRested(db, afterSec, MAX_AT_ONCE, BACKOFF)) await this.#hibernate(capsule)
  }

  async #hibernate({
    id,
    team_id: teamId,
    generation,
  }: Pick<CapsuleRow, 'id' | 'team_id' | 'generation'>): Promise<void> {
    const { lifecycle, logger } = this.#deps
    const onlyIf = (row: CapsuleRow): boolean => row.generation === generation
    try {
      await lifecycle.hibernate(teamId, id, { reason: 'idle', waitMs: 0, onlyIf })
    } catch (error) {
      // Used, or moved by somebody else, since the look.
      if (AppError.is(error, 'conflict', 'invalid_state', 'capsule_not_found')) return
      logger.warn({ capsuleId: id, error: errorText(error) }, 'capsule.not_hibernated')
    }
  }
}
