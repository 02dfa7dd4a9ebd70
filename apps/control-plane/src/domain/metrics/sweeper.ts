import { errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { pruneMetricsOfGone } from '../../store/metrics.js'
import { Rounds } from '../rounds.js'
import { tiers } from './tiers.js'

const EVERY_MS = 10 * 60_000

interface SweeperDeps {
  readonly db: Db
  readonly logger: Logger
  /** @default 600 000 */
  readonly everyMs?: number
}

/** Forgets what is old of capsules whose host was removed: a collector does so for those of its own host alone. */
export class MetricsSweeper extends Rounds {
  readonly #db: Db

  constructor({ db, logger, everyMs = EVERY_MS }: SweeperDeps) {
    super(
      () => this.sweep(),
      everyMs,
      (error) => logger.debug({ error: errorText(error) }, 'metrics.not_swept'),
    )
    this.#db = db
  }

  /** One round. */
  async sweep(): Promise<void> {
    for (const [tier, { spanSec, keepSec }] of tiers.entries())
      await pruneMetricsOfGone(this.#db, tier, keepSec + 2 * spanSec)
  }
}
