import { AppError } from '@wrenn/base'
import { isScope, type MemberOfTeam, permissionsOf, permissionsOfRole, type Role } from '@wrenn/protocol'
import type { Mailer } from '../../mail/index.js'
import { revokeKey } from '../../store/api-keys.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type { Actor, ApiKeyRow } from '../../store/schema.js'
import {
  countOwned,
  dropMember,
  findPerson,
  keysMadeBy,
  listPeople,
  searchColleagues,
  setRole,
  type TeamPerson,
} from '../../store/team-people.js'
import { holdTeam } from '../../store/teams.js'
import { lockUser } from '../../store/users.js'
import { keyEntry } from '../accounts/index.js'
import { MAX_OWNED } from './limits.js'
import type { Person } from './person.js'
import { teamEntry } from './team-entry.js'
import { noTeam, toMember } from './teams.js'

const MAX_FOUND = 10

interface MembersDeps {
  readonly db: Db
  readonly mailer: Mailer
  /** Called when keys and people may do less than before; other processes hear of it. */
  readonly onChange: () => void
}

/** Who is in a team, and what they are there. A team has one owner, always. */
export class Members {
  readonly #deps: MembersDeps

  constructor(deps: MembersDeps) {
    this.#deps = deps
  }

  /** Who has been there for longest first. */
  async list(teamId: string): Promise<MemberOfTeam[]> {
    return (await listPeople(this.#deps.db, teamId)).map(toMember)
  }

  /** People of the same teams whose address begins so. */
  async search({ id }: Person, beginning: string): Promise<{ user_id: string; email: string }[]> {
    const found = await searchColleagues(this.#deps.db, id, beginning, MAX_FOUND)
    return found.map(({ userId, email }) => ({ user_id: userId, email }))
  }

  /** Keys that would now be more than who made them end. @throws AppError `member_not_found`, `conflict` for the owner */
  async changeRole(teamId: string, userId: string, role: Exclude<Role, 'owner'>, actor: Actor): Promise<void> {
    await this.#change(teamId, userId, async (tx, person) => {
      refuseOwner(person, 'change the role of')
      if (person.role === role) return
      await setRole(tx, teamId, userId, role)
      await writeAudit(tx, memberEntry('member.change_role', teamId, person, actor, { role, before: person.role }))
      await this.#endKeys(tx, teamId, userId, actor, (key) => isBeyond(key, role))
    })
  }

  /** Their sessions in the team and the keys that they made there end. @throws AppError `member_not_found`, `conflict` for the owner */
  async remove(teamId: string, userId: string, actor: Actor): Promise<void> {
    await this.#change(teamId, userId, async (tx, person) => {
      refuseOwner(person, 'remove')
      await this.#drop(tx, teamId, person, actor, 'member.remove')
    })
  }

  /** @throws AppError `conflict` for the owner */
  async leave(teamId: string, userId: string, actor: Actor): Promise<void> {
    await this.#change(teamId, userId, async (tx, person) => {
      if (person.role === 'owner') {
        throw new AppError('conflict', 'A team has an owner always: hand it over to somebody first, or delete it.')
      }
      await this.#drop(tx, teamId, person, actor, 'member.leave')
    })
  }

  /** Makes somebody else the owner; who was it becomes an admin. @throws AppError `member_not_found`, `forbidden`, `conflict` */
  async transfer(teamId: string, from: Person, toUserId: string, actor: Actor): Promise<void> {
    await this.#change(teamId, toUserId, async (tx, person, team) => {
      if ((await findPerson(tx, teamId, from.id))?.role !== 'owner') {
        throw new AppError('forbidden', 'Only the owner of a team can hand it over.')
      }
      if (toUserId === from.id) return
      const next = await lockUser(tx, toUserId)
      // They may have gone while their row was waited for.
      const isThere = (await findPerson(tx, teamId, toUserId)) !== undefined
      if (next?.status !== 'active' || next.deleted_at !== null || !isThere) {
        throw new AppError('conflict', `The account of ${person.name} cannot own a team now: it is disabled or going.`)
      }
      if ((await countOwned(tx, toUserId)) >= MAX_OWNED) {
        throw new AppError('limit_exceeded', `${person.name} owns as many teams as one may.`)
      }
      await setRole(tx, teamId, from.id, 'admin')
      await setRole(tx, teamId, toUserId, 'owner')
      await writeAudit(tx, memberEntry('team.transfer', teamId, person, actor, { before: from.id }))
      const { email: to, name } = person
      await this.#deps.mailer.send(tx, { kind: 'ownership-received', to, name, team: team.name, by: from.name })
    })
  }

  async #change(
    teamId: string,
    userId: string,
    task: (tx: Db, person: TeamPerson, team: { readonly name: string }) => Promise<void>,
  ): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      const team = await holdTeam(tx, teamId)
      if (team === undefined) throw noTeam(teamId)
      const person = await findPerson(tx, teamId, userId)
      if (person === undefined) throw new AppError('member_not_found', `Nobody in this team has the id ${userId}.`)
      await task(tx, person, team)
    })
    this.#deps.onChange()
  }

  async #drop(tx: Db, teamId: string, person: TeamPerson, actor: Actor, action: string): Promise<void> {
    await dropMember(tx, teamId, person.userId)
    await writeAudit(tx, memberEntry(action, teamId, person, actor, { role: person.role }))
    await this.#endKeys(tx, teamId, person.userId, actor, () => true)
  }

  async #endKeys(
    tx: Db,
    teamId: string,
    userId: string,
    actor: Actor,
    isOver: (key: ApiKeyRow) => boolean,
  ): Promise<void> {
    for (const key of await keysMadeBy(tx, teamId, userId)) {
      if (!isOver(key)) continue
      await revokeKey(tx, key.id)
      await writeAudit(tx, keyEntry('api_key.revoke', key, actor))
    }
  }
}

function isBeyond(key: ApiKeyRow, role: Role): boolean {
  const allowed = permissionsOfRole(role)
  return [...permissionsOf(key.scopes.filter(isScope))].some((permission) => !allowed.has(permission))
}

/** @throws AppError `conflict` */
function refuseOwner({ role }: TeamPerson, what: string): void {
  if (role !== 'owner') return
  throw new AppError('conflict', `Nobody can ${what} the owner of a team; the owner can hand it over to somebody else.`)
}

function memberEntry(
  action: string,
  teamId: string,
  { userId }: TeamPerson,
  actor: Actor,
  details: Readonly<Record<string, string>>,
) {
  return teamEntry(action, teamId, actor, details, { type: 'user', id: userId })
}
