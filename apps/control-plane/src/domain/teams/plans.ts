import { AppError } from '@wrenn/base'
import type { Plan, PutPlanInput } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { type CountedPlan, countPlans, deletePlan, findPlan, listPlans, lockPlans, putPlan } from '../../store/plans.js'
import type { Actor } from '../../store/schema.js'
import { PLATFORM_TEAM_ID } from '../people/index.js'
import { toLimits, wholeQuota } from './quota-fields.js'
import { teamEntry } from './team-entry.js'

const MAX_PLANS = 1_000

/** Limits with names, which admins of the platform give to teams. */
export class Plans {
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
  }

  /** By name. */
  async list(): Promise<Plan[]> {
    return (await listPlans(this.#db)).map(toPlan)
  }

  /**
   * Makes a plan, or gives it these limits and no others; its teams have them from their next start on.
   * @throws AppError `conflict` when there are too many
   */
  async put(name: string, limits: PutPlanInput, actor: Actor): Promise<Plan> {
    return await this.#db.transaction().execute(async (tx) => {
      await lockPlans(tx)
      const before = await findPlan(tx, name)
      if (before === undefined && (await countPlans(tx)) >= MAX_PLANS) {
        throw new AppError('conflict', `There are ${MAX_PLANS} plans, which is as many as there may be; delete one.`)
      }
      const quota = wholeQuota(limits)
      const known: Record<string, unknown> = { ...before }
      const changed = Object.entries(quota).filter(([column, limit]) => known[column] !== limit)
      await putPlan(tx, name, quota)
      if (before === undefined || changed.length > 0) {
        const details = Object.fromEntries(
          changed.map(([column, limit]) => [column, limit === null ? 'default' : `${limit}`]),
        )
        await writeAudit(tx, planEntry(before === undefined ? 'plan.create' : 'plan.update', name, actor, details))
      }
      const now = await findPlan(tx, name)
      if (now === undefined) throw noPlan(name)
      return toPlan(now)
    })
  }

  /** @throws AppError `not_found`, `in_use` while teams have it */
  async remove(name: string, actor: Actor): Promise<void> {
    await this.#db.transaction().execute(async (tx) => {
      await lockPlans(tx)
      const plan = await findPlan(tx, name)
      if (plan === undefined) throw noPlan(name)
      if (plan.teams > 0) {
        throw new AppError('in_use', `${plan.teams} teams have the plan ${name}; give them another one first.`)
      }
      await deletePlan(tx, name)
      await writeAudit(tx, planEntry('plan.delete', name, actor, {}))
    })
  }
}

/** For a name that no plan has. */
export function noPlan(name: string): AppError {
  return new AppError('not_found', `There is no plan ${name}.`)
}

function planEntry(action: string, name: string, actor: Actor, details: Readonly<Record<string, string>>) {
  return teamEntry(action, PLATFORM_TEAM_ID, actor, details, { type: 'plan', id: name })
}

function toPlan(row: CountedPlan): Plan {
  return { name: row.name, quota: toLimits(row), teams: row.teams, created_at: row.created_at.toISOString() }
}
