import { errorText, type Logger } from '@wrenn/base'
import {
  giveUpExcess,
  giveUpOverdue,
  pruneDeliveries,
  pruneExcess,
  pruneOrphans,
} from '../../store/channel-deliveries.js'
import type { Db } from '../../store/database.js'
import { Rounds } from '../rounds.js'

const EVERY_MS = 60_000
const BATCH = 2_000
/** What a channel has waiting, and what it has in its log. */
const MAX_KEPT = 10_000
/** What a round has not done the next one does. */
const MAX_BATCHES = 100

interface ChannelSweeperDeps {
  readonly db: Db
  readonly logger: Logger
  /** How long an event is tried to be sent. */
  readonly giveUpMs: number
  /** How long what ended stays in the log. */
  readonly keepMs: number
  /** @default 60 000 */
  readonly everyMs?: number
}

/** Gives up what could not be sent in time or is too much, and forgets old parts of the log. */
export class ChannelSweeper extends Rounds {
  constructor({ db, logger, giveUpMs, keepMs, everyMs = EVERY_MS }: ChannelSweeperDeps) {
    const all = async (batch: () => Promise<number>): Promise<void> => {
      for (let done = 0; done < MAX_BATCHES && !this.signal.aborted; done++) if ((await batch()) < BATCH) return
    }
    const round = async (): Promise<void> => {
      await all(() => giveUpOverdue(db, giveUpMs, BATCH))
      await all(() => giveUpExcess(db, MAX_KEPT, BATCH))
      await all(() => pruneDeliveries(db, keepMs, BATCH))
      await all(() => pruneExcess(db, MAX_KEPT, BATCH))
      await all(() => pruneOrphans(db, BATCH))
    }
    super(round, everyMs, (error) => logger.debug({ error: errorText(error) }, 'channels.not_swept'))
  }
}
