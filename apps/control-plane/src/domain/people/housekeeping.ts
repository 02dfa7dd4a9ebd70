import { errorText, type Logger } from '@wrenn/base'
import { pruneAttempts } from '../../store/attempts.js'
import type { Db } from '../../store/database.js'
import { pruneDeviceLogins } from '../../store/device-logins.js'
import { pruneInvitations } from '../../store/invitations.js'
import { pruneLoginSteps } from '../../store/login-steps.js'
import { pruneOauth } from '../../store/oauth-flows.js'
import { pruneSessions } from '../../store/sessions.js'
import { Rounds } from '../rounds.js'

const EVERY_MS = 5 * 60_000

/** Forgets sessions, tokens, invitations and counts that are over. */
export class Housekeeping extends Rounds {
  constructor(db: Db, logger: Logger) {
    const round = async (): Promise<void> => {
      await pruneSessions(db)
      await pruneInvitations(db)
      await pruneDeviceLogins(db)
      await pruneOauth(db)
      await pruneLoginSteps(db)
      await pruneAttempts(db)
    }
    super(round, EVERY_MS, (error) => logger.debug({ error: errorText(error) }, 'people.not_pruned'))
  }
}
