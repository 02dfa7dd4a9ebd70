import type { AnyTeam, ListAllTeamsQuery, UpdateTeamQuotaInput } from '@wrenn/protocol'
import { type CountedTeam, changeQuota, findCountedTeam, listAllTeams } from '../../store/all-teams.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { holdPlan } from '../../store/plans.js'
import type { Actor } from '../../store/schema.js'
import { holdTeam } from '../../store/teams.js'
import { noPlan } from './plans.js'
import { quotaChange, toLimits } from './quota-fields.js'
import { teamEntry } from './team-entry.js'
import { noTeam } from './teams.js'

/** What admins of the platform do with teams of others. */
export class TeamAdmin {
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
  }

  /** Oldest first. */
  async list({ limit, after }: ListAllTeamsQuery): Promise<AnyTeam[]> {
    return (await listAllTeams(this.#db, limit, after)).map(toAnyTeam)
  }

  /** @throws AppError `team_not_found` */
  async get(id: string): Promise<AnyTeam> {
    const team = await findCountedTeam(this.#db, id)
    if (team === undefined) throw noTeam(id)
    return toAnyTeam(team)
  }

  /**
   * Sets limits of a team. What it uses beyond one goes on; it starts nothing more.
   * @throws AppError `team_not_found`, `not_found` for a plan that is not there
   */
  async setQuota(id: string, wanted: UpdateTeamQuotaInput, actor: Actor): Promise<AnyTeam> {
    await this.#db.transaction().execute(async (tx) => {
      const before = await holdTeam(tx, id)
      if (before === undefined) throw noTeam(id)
      const { plan, ...limits } = wanted
      if (typeof plan === 'string' && !(await holdPlan(tx, plan))) throw noPlan(plan)
      const change = { ...quotaChange(limits), ...(plan === undefined ? {} : { plan }) }
      const changed = Object.entries(change).filter(
        ([column, value]) => before[column as keyof typeof change] !== value,
      )
      if (changed.length === 0) return
      await changeQuota(tx, id, change)
      const details = Object.fromEntries(
        changed.map(([column, value]) => [column, value === null ? 'default' : `${value}`]),
      )
      await writeAudit(tx, teamEntry('team.set_quota', id, actor, details))
    })
    return await this.get(id)
  }
}

function toAnyTeam(row: CountedTeam): AnyTeam {
  return {
    id: row.id,
    name: row.name,
    slug: row.slug,
    is_byoc: false,
    audit_data_access: row.audit_data_access,
    created_at: row.created_at.toISOString(),
    members: row.members,
    plan: row.plan,
    quota: toLimits(row),
  }
}
