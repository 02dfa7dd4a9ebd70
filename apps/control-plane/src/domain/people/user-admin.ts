import { AppError } from '@wrenn/base'
import {
  type CreateUserInput,
  type ListUsersQuery,
  type NewUser,
  platformScopes,
  type UpdateUserInput,
  type User,
} from '@wrenn/protocol'
import { type NewAuditEntry, writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { addEmailToken } from '../../store/email-tokens.js'
import type { Actor, UserRow } from '../../store/schema.js'
import { revokeSessions } from '../../store/sessions.js'
import {
  addUser,
  changeUser,
  countActive,
  findUser,
  findUserByEmail,
  listUsers,
  lockPeople,
  revokeKeysOf,
} from '../../store/users.js'
import type { Principal } from '../accounts/index.js'
import { digestOf, newCode } from './tokens.js'

const ACTIVATION_SEC = 7 * 24 * 3600

interface UserAdminDeps {
  readonly db: Db
  /** Called when keys and sessions may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** What admins of the platform do with accounts of others. */
export class UserAdmin {
  readonly #deps: UserAdminDeps

  constructor(deps: UserAdminDeps) {
    this.#deps = deps
  }

  /** Oldest first. */
  async list({ limit, after }: ListUsersQuery): Promise<User[]> {
    return (await listUsers(this.#deps.db, limit, after)).map(toUser)
  }

  /** Makes a pending account and the token that activates it, without any mail. @throws AppError `email_taken` */
  async create(by: Principal, { email, name, is_admin }: CreateUserInput, actor: Actor): Promise<NewUser> {
    const token = newCode()
    return await this.#deps.db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      if ((await findUserByEmail(tx, email)) !== undefined) {
        throw new AppError('email_taken', `There is an account with the address ${email} already.`)
      }
      const added = await addUser(tx, { email, name })
      const user = (is_admin ? await changeUser(tx, added.id, { is_admin }) : undefined) ?? added
      const end = await addEmailToken(tx, {
        digest: digestOf(token),
        kind: 'activation',
        userId: user.id,
        lifeSec: ACTIVATION_SEC,
      })
      await writeAudit(tx, entryOf('user.create', by, user, actor))
      return { ...toUser(user), activation_token: token, activation_expires_at: end.toISOString() }
    })
  }

  /**
   * Disabling ends the sessions of the account and the keys that it made, and those that these made, demoting those of them that may do
   * something as the platform; enabling and promoting bring none back. An admin
   * is left in any case.
   * @throws AppError `user_not_found`, `conflict`
   */
  async update(by: Principal, id: string, change: UpdateUserInput, actor: Actor): Promise<User> {
    const user = await this.#deps.db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      const before = await findUser(tx, id)
      if (before === undefined || before.erased_at !== null) {
        throw new AppError('user_not_found', `There is no account ${id}.`)
      }
      if (before.deleted_at !== null) {
        throw new AppError('conflict', 'The owner of this account has deleted it; restore it first.')
      }
      if (change.status !== undefined && before.status === 'pending') {
        throw new AppError('conflict', 'This account was not activated yet; its owner does that with the link.')
      }
      await refuseLastAdmin(tx, before, change)
      const after = (await changeUser(tx, id, change)) ?? before
      if (change.status === 'disabled') {
        await revokeSessions(tx, { userId: id })
        await revokeKeysOf(tx, id)
      }
      if (before.is_admin && !after.is_admin) await revokeKeysOf(tx, id, platformScopes)
      for (const action of actionsOf(before, after)) await writeAudit(tx, entryOf(action, by, after, actor))
      return after
    })
    this.#deps.onChange()
    return toUser(user)
  }
}

async function refuseLastAdmin(tx: Db, { id, is_admin, status }: UserRow, change: UpdateUserInput): Promise<void> {
  const isEnding = change.is_admin === false || change.status === 'disabled'
  if (!isEnding || !is_admin || status !== 'active' || (await countActive(tx, id)).admins > 0) return
  throw new AppError('conflict', 'This is the last admin of the platform. Make another one first.')
}

function actionsOf(before: UserRow, after: UserRow): string[] {
  return [
    ...(before.status === after.status ? [] : [after.status === 'disabled' ? 'user.disable' : 'user.enable']),
    ...(before.is_admin === after.is_admin ? [] : [after.is_admin ? 'user.promote' : 'user.demote']),
  ]
}

function entryOf(action: string, { teamId }: Principal, { id }: UserRow, actor: Actor): NewAuditEntry {
  return { teamId, actor, action, resource: { type: 'user', id }, scope: 'admin' }
}

/** An account as admins see it. */
export function toUser(row: UserRow): User {
  return {
    id: row.id,
    email: row.email,
    name: row.name,
    status: row.deleted_at === null ? row.status : 'deleted',
    is_admin: row.is_admin,
    created_at: row.created_at.toISOString(),
    ...(row.erase_at === null ? {} : { erase_at: row.erase_at.toISOString() }),
  }
}
