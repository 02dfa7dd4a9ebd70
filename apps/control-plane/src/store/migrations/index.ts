import type { Migration } from 'kysely'
import * as accounts from './0001-accounts.js'
import * as capsules from './0002-capsules.js'
import * as lifecycle from './0003-lifecycle.js'
import * as workInFlight from './0004-work-in-flight.js'
import * as poolUsage from './0005-pool-usage.js'
import * as portAccess from './0006-port-access.js'
import * as apiKeys from './0007-api-keys.js'
import * as audit from './0008-audit.js'
import * as lifetimes from './0009-lifetimes.js'
import * as people from './0010-people.js'
import * as mail from './0011-mail.js'
import * as egress from './0012-egress.js'
import * as teams from './0013-teams.js'

/** In the order of their names; a name never changes once released. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-accounts': accounts,
  '0002-capsules': capsules,
  '0003-lifecycle': lifecycle,
  '0004-work-in-flight': workInFlight,
  '0005-pool-usage': poolUsage,
  '0006-port-access': portAccess,
  '0007-api-keys': apiKeys,
  '0008-audit': audit,
  '0009-lifetimes': lifetimes,
  '0010-people': people,
  '0011-mail': mail,
  '0012-egress': egress,
  '0013-teams': teams,
}
