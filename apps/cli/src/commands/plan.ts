import type { PlanInfo } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { table } from '../output.js'
import { type LimitOptions, limitCells, limitHeads, limitsJson, limitsOf, needLimit, withLimits } from './limits.js'

const help = `
A team without a limit of its own has that of its plan, and without a plan that of the platform.

Examples:
  wrenn plan set free --running 3 --vcpus 6 --memory 8g --files 20g --calls 600
  wrenn quota set team-… --plan free
  wrenn plan ls --json
  wrenn plan rm free`

/** `wrenn plan`: limits with names, for admins of the platform. */
export function addPlan(program: Command): void {
  const plan = program.command('plan').description('limits with a name, for teams; for admins of the platform')
  plan.addHelpText('after', help)
  addList(plan)
  addSet(plan)
  addRemove(plan)
}

function addList(plan: Command): void {
  const command = plan.command('ls').description('list all plans')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const plans = await (await connect(config)).teams.plans()
    output.result(plans.map(planJson), () => showPlans(plans))
  })
}

function addSet(plan: Command): void {
  const command = plan
    .command('set <name>')
    .description('make a plan, or give it these limits and no others: numbers, or none for no limit')
    .addHelpText('after', '\nExample:\n  wrenn plan set free --running 3 --memory 8g')
  withJson(withLimits(command)).action(async (name: string, options: LimitOptions) => {
    const { config, output } = contextOf(options)
    const limits = limitsOf(options)
    needLimit(limits)
    const made = await (await connect(config)).teams.setPlan(name, limits)
    output.result(planJson(made), () => showPlans([made]))
  })
}

function addRemove(plan: Command): void {
  const command = plan.command('rm <name>').description('delete a plan that no team has')
  withJson(command).action(async (name: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    await (await connect(config)).teams.deletePlan(name)
    output.result({ deleted: name }, () => `Deleted the plan ${name}.`)
  })
}

function planJson({ name, limits, teams, createdAt }: PlanInfo): object {
  return { name, quota: limitsJson(limits), teams, created_at: createdAt }
}

function showPlans(plans: readonly PlanInfo[]): string {
  return table(
    ['NAME', 'TEAMS', ...limitHeads],
    plans.map(({ name, teams, limits }) => [name, String(teams), ...limitCells(limits)]),
  )
}
