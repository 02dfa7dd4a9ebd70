import { errorText, type Logger } from '@wrenn/base'
import { listDue } from '../../store/account-ends.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { dropPendingAccounts } from '../../store/pending-accounts.js'
import { Rounds } from '../rounds.js'
import type { AccountEnds } from './account-ends.js'
import { homeTeamOf } from './home-team.js'

const EVERY_MS = 60_000
const AT_ONCE = 50

interface EraserDeps {
  readonly db: Db
  readonly accountEnds: Pick<AccountEnds, 'erase'>
  readonly logger: Logger
  /** How long accounts are kept that nobody activates; 0: for ever. */
  readonly pendingSec: number
  /** @default 60 000 */
  readonly everyMs?: number
}

/** Carries out deletions of accounts whose time has come, and forgets those that nobody has activated. Several may do it at once. */
export class Eraser extends Rounds {
  constructor({ db, accountEnds, logger, pendingSec, everyMs = EVERY_MS }: EraserDeps) {
    const eraseOne = async (userId: string): Promise<void> => {
      try {
        if (await accountEnds.erase(userId)) logger.info({ userId }, 'account.erased')
      } catch (error) {
        // The others' turn comes all the same; this one's again with the next round.
        logger.warn({ userId, error: errorText(error) }, 'account.not_erased')
      }
    }
    const round = async (): Promise<void> => {
      for (const id of await listDue(db, AT_ONCE)) await eraseOne(id)
      if (pendingSec > 0) await expire(db, pendingSec)
    }
    super(round, everyMs, (error) => logger.debug({ error: errorText(error) }, 'eraser.round_failed'))
  }
}

async function expire(db: Db, pendingSec: number): Promise<void> {
  await db.transaction().execute(async (tx) => {
    for (const id of await dropPendingAccounts(tx, pendingSec, AT_ONCE)) {
      const teamId = await homeTeamOf(tx, undefined)
      const resource = { type: 'user', id } as const
      await writeAudit(tx, { teamId, actor: undefined, action: 'user.expire', resource, scope: 'admin' })
    }
  })
}
