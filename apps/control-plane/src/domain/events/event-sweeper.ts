import { errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { pruneEvents } from '../../store/events.js'
import { Rounds } from '../rounds.js'
import { KEEP_MS } from './limits.js'

const EVERY_MS = 60_000
const BATCH = 5_000
/** More than the database can write in a minute; a round that has not done all goes on in the next one. */
const MAX_BATCHES = 100

interface EventSweeperDeps {
  readonly db: Db
  readonly logger: Logger
  /** @default 60 000 */
  readonly everyMs?: number
}

/** Forgets events that are older than a day. */
export class EventSweeper extends Rounds {
  constructor({ db, logger, everyMs = EVERY_MS }: EventSweeperDeps) {
    const round = async (): Promise<void> => {
      for (let batch = 0; batch < MAX_BATCHES && !this.signal.aborted; batch++) {
        if ((await pruneEvents(db, KEEP_MS, BATCH)) < BATCH) return
      }
    }
    super(round, everyMs, (error) => logger.debug({ error: errorText(error) }, 'events.not_pruned'))
  }
}
