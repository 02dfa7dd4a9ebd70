import type { Logger } from '@wrenn/base'
import type { SignUpRule } from '../../config.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { ApiKeys } from '../accounts/index.js'
import { Accounts, type PeopleMailer } from './accounts.js'
import { Housekeeping } from './housekeeping.js'
import { Passwords } from './passwords.js'
import { SessionTokens } from './session-tokens.js'
import { Sessions } from './sessions.js'
import { Throttle } from './throttle.js'
import { UserAdmin } from './user-admin.js'

interface PeopleDeps {
  readonly db: Db
  readonly notifications: Notifications
  readonly apiKeys: ApiKeys
  readonly mailer: PeopleMailer
  readonly signUp: SignUpRule
  readonly logger: Logger
}

/** Puts together all that has to do with people. To be called before `notifications` start. */
export function createPeople({ db, notifications, apiKeys, mailer, signUp, logger }: PeopleDeps) {
  const sessionTokens = new SessionTokens({ db, notifications })
  const onChange = (): void => {
    sessionTokens.forget()
    apiKeys.forget()
  }
  const sessions = new Sessions({ db, onChange })
  const throttle = new Throttle(db)
  const passwords = new Passwords()
  const accounts = new Accounts({ db, mailer, passwords, sessions, throttle, signUp, logger, onChange })
  const userAdmin = new UserAdmin({ db, onChange })
  const housekeeping = new Housekeeping(db, logger)
  return {
    services: { sessionTokens, sessions, accounts, userAdmin, throttle },
    /** To be called when people or keys may do less than before. */
    onChange,
    start: (): void => housekeeping.start(),
    stop: async (): Promise<void> => {
      await accounts.settle()
      await housekeeping.stop()
    },
  }
}
