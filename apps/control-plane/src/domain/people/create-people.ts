import type { Logger } from '@wrenn/base'
import type { SignUpRule } from '../../config.js'
import type { IdentityProvider } from '../../identity/index.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { ApiKeys } from '../accounts/index.js'
import type { Keyring } from '../secrets/index.js'
import { AccountEnds } from './account-ends.js'
import { Accounts } from './accounts.js'
import { Confirmations } from './confirmations.js'
import { DeviceLogins } from './device-logins.js'
import { Eraser } from './eraser.js'
import { Factors } from './factors.js'
import { Housekeeping } from './housekeeping.js'
import { LoginEnd } from './login-end.js'
import { LoginMethods } from './login-methods.js'
import { OauthLogins } from './oauth-logins.js'
import { PasskeyLogins } from './passkey-logins.js'
import { Passkeys } from './passkeys.js'
import { Passwords } from './passwords.js'
import type { PeopleMailer } from './people-mail.js'
import { SecondFactors } from './second-factors.js'
import { SessionTokens } from './session-tokens.js'
import { Sessions } from './sessions.js'
import { SetUp } from './set-up.js'
import { Throttle } from './throttle.js'
import { UserAdmin } from './user-admin.js'

interface PeopleDeps {
  readonly db: Db
  readonly notifications: Notifications
  readonly apiKeys: ApiKeys
  readonly mailer: PeopleMailer
  readonly signUp: SignUpRule
  /** How long a deletion can be taken back. */
  readonly accountGraceSec: number
  /** How long accounts are kept that nobody activates; 0: for ever. */
  readonly pendingAccountSec: number
  readonly keyring: Keyring
  /** Where people are, without a slash at its end. */
  readonly publicUrl: string
  readonly providers: readonly IdentityProvider[]
  readonly logger: Logger
  /** How often it is looked for deletions whose time has come. @default 60 000 */
  readonly eraseEveryMs?: number
}

/** Puts together all that has to do with people. To be called before `notifications` start. */
export function createPeople({
  db,
  notifications,
  apiKeys,
  mailer,
  signUp,
  publicUrl,
  keyring,
  logger,
  ...rest
}: PeopleDeps) {
  const sessionTokens = new SessionTokens({ db, notifications })
  const onChange = (): void => {
    sessionTokens.forget()
    apiKeys.forget()
  }
  const throttle = new Throttle(db)
  const sessions = new Sessions({ db, throttle, onChange })
  const passwords = new Passwords()
  const passkeys = new Passkeys({ db, publicUrl })
  const confirmations = new Confirmations({ db, passkeys, passwords, throttle })
  const accountEnds = new AccountEnds({ db, mailer, confirmations, graceSec: rest.accountGraceSec, onChange })
  const loginEnd = new LoginEnd({ sessions, accountEnds })
  const loginMethods = new LoginMethods({ providers: rest.providers.map(({ id }) => id), passkeys })
  const factors = new Factors({
    ...{ db, keyring, confirmations, loginMethods, mailer, passkeys, throttle, onChange },
  })
  const secondFactors = new SecondFactors({ db, keyring, loginEnd, mailer, passkeys, throttle })
  const passkeyLogins = new PasskeyLogins({ db, loginEnd, passkeys, throttle })
  const accounts = new Accounts({
    ...{ db, mailer, passwords, confirmations, sessions, loginEnd, throttle, signUp, logger, onChange },
  })
  const deviceLogins = new DeviceLogins({ db, sessions, throttle, publicUrl })
  const oauthLogins = new OauthLogins({
    ...{ db, confirmations, loginEnd, loginMethods, mailer, throttle, signUp, publicUrl, logger },
    providers: rest.providers,
  })
  const setUp = new SetUp({ db, passwords, sessions, throttle, logger })
  const userAdmin = new UserAdmin({ db, onChange })
  const housekeeping = new Housekeeping(db, logger)
  const { eraseEveryMs: everyMs } = rest
  const pendingSec = rest.pendingAccountSec
  const eraser = new Eraser({ db, accountEnds, logger, pendingSec, ...(everyMs === undefined ? {} : { everyMs }) })
  return {
    services: {
      sessionTokens,
      sessions,
      accounts,
      accountEnds,
      confirmations,
      factors,
      secondFactors,
      passkeyLogins,
      deviceLogins,
      oauthLogins,
      setUp,
      userAdmin,
      throttle,
    },
    /** To be called when people or keys may do less than before. */
    onChange,
    start: (): void => {
      housekeeping.start()
      eraser.start()
    },
    stop: async (): Promise<void> => {
      await accounts.settle()
      await eraser.stop()
      await housekeeping.stop()
    },
  }
}
