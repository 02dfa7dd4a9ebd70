import { AppError } from '@wrenn/base'
import type { MemberOfTeam, Team, TeamDetails, UpdateTeamInput } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import { setDataAccessAudit } from '../../store/audit-access.js'
import type { Db } from '../../store/database.js'
import { addMember } from '../../store/members.js'
import type { Actor, TeamRow } from '../../store/schema.js'
import { countOwned, listPeople, type TeamPerson } from '../../store/team-people.js'
import {
  createTeam,
  endTeam,
  findTeam,
  holdTeam,
  listTeamsOf,
  renameTeam,
  type TeamOfPerson,
} from '../../store/teams.js'
import { lockUser } from '../../store/users.js'
import { MAX_OWNED } from './limits.js'
import type { Person } from './person.js'
import { teamEntry } from './team-entry.js'

interface TeamsDeps {
  readonly db: Db
  /** Called when keys and people may do less than before; other processes hear of it. */
  readonly onChange: () => void
  /** Called when a team has begun or ended the recording of data access; other processes hear of it. */
  readonly onAuditChange: () => void
}

/** Makes, names and ends teams. */
export class Teams {
  readonly #deps: TeamsDeps

  constructor(deps: TeamsDeps) {
    this.#deps = deps
  }

  /** Those that somebody is in, the oldest membership first. */
  async list(userId: string): Promise<Team[]> {
    return (await listTeamsOf(this.#deps.db, userId)).map(toTeam)
  }

  /** @throws AppError `team_not_found` */
  async get(teamId: string): Promise<TeamDetails> {
    const { db } = this.#deps
    const team = await findTeam(db, teamId)
    if (team === undefined) throw noTeam(teamId)
    return { team: toPlainTeam(team), members: (await listPeople(db, teamId)).map(toMember) }
  }

  /** Somebody's new team, of which they are the owner. @throws AppError `limit_exceeded` */
  async create({ id }: Person, name: string, actor: Actor): Promise<Team> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      await lockUser(tx, id)
      const owned = await countOwned(tx, id)
      if (owned >= MAX_OWNED) {
        throw new AppError('limit_exceeded', `You own ${owned} teams, as many as one may; delete or hand over some.`)
      }
      const teamId = await createTeam(tx, name)
      await addMember(tx, teamId, id, 'owner')
      await writeAudit(tx, teamEntry('team.create', teamId, actor, { name }))
      const team = await findTeam(tx, teamId)
      if (team === undefined) throw noTeam(teamId)
      return toTeam({ ...team, role: 'owner' })
    })
  }

  /** Renames it, and says whether commands and file operations are in its audit trail; what is left out stays. @throws AppError `team_not_found` */
  async update(teamId: string, change: UpdateTeamInput, actor: Actor): Promise<void> {
    const { name, audit_data_access: isAudited } = change
    await this.#deps.db.transaction().execute(async (tx) => {
      const team = await holdTeam(tx, teamId)
      if (team === undefined) throw noTeam(teamId)
      if (name !== undefined && team.name !== name) {
        await renameTeam(tx, teamId, name)
        await writeAudit(tx, teamEntry('team.rename', teamId, actor, { name, before: team.name }))
      }
      if (isAudited !== undefined && (await setDataAccessAudit(tx, teamId, isAudited))) {
        const details = { data_access: isAudited ? 'on' : 'off' }
        await writeAudit(tx, teamEntry('team.set_audit', teamId, actor, details))
      }
    })
    if (isAudited !== undefined) this.#deps.onAuditChange()
  }

  /**
   * Ends a team: its people, keys and invitations at once, its capsules and snapshots soon after, by operations of their own.
   * @throws AppError `team_not_found`
   */
  async remove(teamId: string, actor: Actor): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      const team = await holdTeam(tx, teamId)
      if (team === undefined) throw noTeam(teamId)
      await endTeam(tx, teamId)
      await writeAudit(tx, teamEntry('team.delete', teamId, actor, { name: team.name }))
    })
    this.#deps.onChange()
  }
}

/** The same whether there is such a team or not. */
export function noTeam(teamId: string): AppError {
  return new AppError('team_not_found', `You are in no team ${teamId}.`)
}

function toPlainTeam({ id, name, slug, audit_data_access, created_at }: TeamRow) {
  return { id, name, slug, is_byoc: false, audit_data_access, created_at: created_at.toISOString() }
}

/** A team on the wire. */
export function toTeam(team: TeamOfPerson): Team {
  return { ...toPlainTeam(team), role: team.role }
}

export function toMember({ userId, name, email, role, joinedAt }: TeamPerson): MemberOfTeam {
  return { user_id: userId, name, email, role, joined_at: joinedAt.toISOString() }
}
