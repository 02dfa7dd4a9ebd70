import type { Migration } from 'kysely'
import * as accounts from './0001-accounts.js'
import * as capsules from './0002-capsules.js'

/** In the order of their names; a name never changes once released. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-accounts': accounts,
  '0002-capsules': capsules,
}
