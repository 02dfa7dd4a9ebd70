import { AppError } from '@wrenn/base'
import type { User } from '@wrenn/protocol'
import {
  eraseAccount,
  findSuccessor,
  listOwned,
  lockDue,
  markDeleted,
  type OwnedTeam,
  unmarkDeleted,
} from '../../store/account-ends.js'
import { type NewAuditEntry, writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type { Actor, UserRow } from '../../store/schema.js'
import { revokeSessions } from '../../store/sessions.js'
import { setRole } from '../../store/team-people.js'
import { endTeam, holdTeam, renameTeam } from '../../store/teams.js'
import { countActive, lockPeople, lockUser, revokeKeysOf } from '../../store/users.js'
import type { Principal, UserPrincipal } from '../accounts/index.js'
import type { Confirmations } from './confirmations.js'
import { type From, personActor } from './from.js'
import { homeTeamOf } from './home-team.js'
import type { PeopleMailer } from './people-mail.js'
import { toUser } from './user-admin.js'

const ERASED_TEAM = 'Deleted team'

interface AccountEndsDeps {
  readonly db: Db
  readonly mailer: PeopleMailer
  readonly confirmations: Pick<Confirmations, 'require'>
  /** How long a deletion can be taken back. */
  readonly graceSec: number
  /** Called when keys and sessions may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** The end of accounts: asked for by their owners, taken back or not, and then carried out. */
export class AccountEnds {
  readonly #deps: AccountEndsDeps

  constructor(deps: AccountEndsDeps) {
    this.#deps = deps
  }

  /**
   * From its commit on nobody is logged in to the account, and no key that it made is good. What it owns goes with it, when its time is over.
   * @param confirmation the account's address
   * @returns when that is
   * @throws AppError `confirmation_needed`, `invalid_request`, `owns_team_with_members`, `conflict` for the last admin
   */
  async request(principal: UserPrincipal, confirmation: string, from: From): Promise<Date> {
    const { db, mailer, confirmations, graceSec, onChange } = this.#deps
    if (confirmation.trim().toLowerCase() !== principal.email.toLowerCase()) {
      throw new AppError('invalid_request', 'confirmation: is not the address of this account')
    }
    const eraseAt = await db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      await holdOwned(tx, principal.id)
      const user = await lockUser(tx, principal.id)
      if (user === undefined || user.deleted_at !== null) throw new AppError('unauthorized', 'The account is gone.')
      await confirmations.require(tx, principal)
      refuseOwner(await listOwned(tx, user.id))
      if (user.is_admin && (await countActive(tx, user.id)).admins === 0) {
        throw new AppError('conflict', 'You are the last admin of the platform. Make another one first.')
      }
      const end = await markDeleted(tx, user.id, graceSec)
      await revokeSessions(tx, { userId: user.id })
      await revokeKeysOf(tx, user.id)
      await writeAudit(tx, entryOf('user.request_deletion', user, personActor(user, from), principal.teamId))
      const { email: to, name } = user
      await mailer.send(tx, { kind: 'deletion-scheduled', to, name, deletedAt: end.toISOString() })
      return end
    })
    onChange()
    return eraseAt
  }

  /** For its owner, who has proved that they are it; in the caller's transaction, which holds the account's row. */
  async takeBack(tx: Db, { id }: UserRow, from: From): Promise<UserRow> {
    const user = await unmarkDeleted(tx, id)
    const teamId = await homeTeamOf(tx, id)
    await writeAudit(tx, entryOf('user.restore', user, personActor(user, from), teamId))
    return user
  }

  /** For admins of the platform. @throws AppError `user_not_found`, `conflict` when nobody has deleted it */
  async restore({ teamId }: Principal, id: string, actor: Actor): Promise<User> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      const found = await lockUser(tx, id)
      if (found === undefined || found.erased_at !== null) {
        throw new AppError('user_not_found', `There is no account ${id}.`)
      }
      if (found.deleted_at === null) throw new AppError('conflict', 'Nobody has asked for the end of this account.')
      const user = await unmarkDeleted(tx, id)
      await writeAudit(tx, entryOf('user.restore', user, actor, teamId))
      return toUser(user)
    })
  }

  /**
   * Carries out a deletion whose time has come: teams of its own end, and are swept as all others; of the account an id is left.
   * @returns false when it was taken back, or another process does it
   */
  async erase(id: string): Promise<boolean> {
    const { db, mailer, onChange } = this.#deps
    const isErased = await db.transaction().execute(async (tx) => {
      const home = await homeTeamOf(tx, id)
      await holdOwned(tx, id)
      const user = await lockDue(tx, id)
      if (user === undefined) return false
      for (const team of await listOwned(tx, id)) await this.#leave(tx, team, user)
      await writeAudit(tx, entryOf('user.erase', user, undefined, home))
      await mailer.send(tx, { kind: 'account-deleted', to: user.email, name: user.name })
      await eraseAccount(tx, user)
      return true
    })
    if (isErased) onChange()
    return isErased
  }

  /** Somebody may have come in meanwhile, by a key that was no person's: a team with people in it goes on. */
  async #leave(tx: Db, { id: teamId }: OwnedTeam, owner: UserRow): Promise<void> {
    const resource = { type: 'team', id: teamId } as const
    const entry = { teamId, actor: undefined, resource, scope: 'admin' } as const
    const successor = await findSuccessor(tx, teamId, owner.id)
    if (successor === undefined) {
      await endTeam(tx, teamId)
      // It is called after its owner unless somebody chose another name.
      await renameTeam(tx, teamId, ERASED_TEAM)
      await writeAudit(tx, { ...entry, action: 'team.delete' })
      return
    }
    await setRole(tx, teamId, owner.id, 'admin')
    await setRole(tx, teamId, successor, 'owner')
    await writeAudit(tx, {
      ...entry,
      action: 'team.transfer',
      resource: { type: 'user', id: successor },
      details: { before: owner.id },
    })
  }
}

/** Teams before people, as everywhere: two who wait for each other's rows would wait for ever. */
async function holdOwned(tx: Db, userId: string): Promise<void> {
  for (const { id } of await listOwned(tx, userId)) await holdTeam(tx, id)
}

/** @throws AppError `owns_team_with_members` */
function refuseOwner(owned: readonly OwnedTeam[]): void {
  const peopled = owned.filter(({ others }) => others > 0)
  if (peopled.length === 0) return
  const names = peopled.map(({ name }) => `“${name}”`).join(', ')
  throw new AppError('owns_team_with_members', `You own ${names}, where others are too.`, {
    details: { teams: peopled.map(({ id }) => id) },
  })
}

function entryOf(action: string, { id }: UserRow, actor: Actor | undefined, teamId: string): NewAuditEntry {
  return { teamId, actor, action, resource: { type: 'user', id }, scope: 'admin' }
}
