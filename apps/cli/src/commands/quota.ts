import type { AnyTeamInfo, Quota, QuotaUse } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { printable, table } from '../output.js'
import { showBytes } from '../units.js'
import { type LimitOptions, limitCells, limitHeads, limitsJson, limitsOf, needLimit, withLimits } from './limits.js'

const help = `
Paused capsules count for files only: pausing one frees its CPUs and memory.

Examples:
  wrenn quota --json | jq .running_capsules
  wrenn quota --team team-…                    of any team, for admins of the platform
  wrenn quota ls                               all teams and the limits that are their own
  wrenn quota set team-… --running 10 --memory 16g --files 100g
  wrenn quota set team-… --running default --vcpus none`

interface QuotaOptions extends CommonOptions {
  readonly team?: string
}

/** `wrenn quota`: what teams use and may use. */
export function addQuota(program: Command): void {
  const command = program
    .command('quota')
    .description('show what your team uses and may use')
    .option('--team <id>', 'of any team; for admins of the platform')
    .addHelpText('after', help)
  withJson(command).action(async (options: QuotaOptions) => {
    const { config, output } = contextOf(options)
    const wrenn = await connect(config)
    const quota = options.team === undefined ? await wrenn.quota() : await wrenn.teams.quota(options.team)
    output.result(toJson(quota), () => showQuota(quota))
  })
  addList(command)
  addSet(command)
}

function addList(quota: Command): void {
  const command = quota.command('ls').description('list all teams and the limits that are their own')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const teams: AnyTeamInfo[] = []
    for await (const team of (await connect(config)).teams.listAll()) teams.push(team)
    output.result(teams.map(teamJson), () => showTeams(teams))
  })
}

interface SetOptions extends LimitOptions {
  readonly plan?: string
}

function addSet(quota: Command): void {
  const command = quota
    .command('set <team>')
    .description('set limits of a team: a number, none, or default for what its plan or the platform gives')
    .option('--plan <name>', 'limits that are not the own ones of the team (`wrenn plan`); none takes it away')
    .addHelpText(
      'after',
      '\nExamples:\n  wrenn quota set team-… --running 10 --files default\n  wrenn quota set team-… --plan free',
    )
  withJson(withLimits(command)).action(async (team: string, options: SetOptions) => {
    const { plan } = options
    const limits = limitsOf(options)
    if (plan === undefined) needLimit(limits, ', or --plan')
    const { config, output } = contextOf(options)
    const changed = await (await connect(config)).teams.setLimits(team, {
      ...limits,
      ...(plan === undefined ? {} : { plan: plan === 'none' ? null : plan }),
    })
    output.result(teamJson(changed), () => showTeams([changed]))
  })
}

function teamJson({ id, name, slug, createdAt, members, plan, limits }: AnyTeamInfo): object {
  return { id, name, slug, created_at: createdAt, members, plan: plan ?? null, quota: limitsJson(limits) }
}

function showTeams(teams: readonly AnyTeamInfo[]): string {
  return table(
    ['ID', 'NAME', 'MEMBERS', 'PLAN', ...limitHeads],
    teams.map(({ id, name, members, plan, limits }) => [
      id,
      printable(name),
      String(members),
      plan ?? '',
      ...limitCells(limits),
    ]),
  )
}

function toJson(quota: Quota): object {
  const use = ({ used, limit }: QuotaUse): object => ({ used, limit: limit ?? null })
  return {
    running_capsules: use(quota.runningCapsules),
    vcpus: use(quota.vcpus),
    memory_mb: use(quota.memoryMib),
    pool_bytes: use(quota.poolBytes),
    capsules: use(quota.capsules),
    creating_capsules: use(quota.creatingCapsules),
    api_calls_per_min: use(quota.apiCallsPerMin),
    plan: quota.plan ?? null,
  }
}

function showQuota(quota: Quota): string {
  const row = (what: string, { used, limit }: QuotaUse, show: (value: number) => string = String): string[] => [
    what,
    show(used),
    limit === undefined ? 'no limit' : show(limit),
    limit === undefined || limit === 0 ? '' : `${Math.round((used / limit) * 100)} %`,
  ]
  return table(
    ['', 'USED', 'LIMIT', ''],
    [
      row('running capsules', quota.runningCapsules),
      row('virtual CPUs running', quota.vcpus),
      row('memory running', quota.memoryMib, (mib) => `${mib} MiB`),
      row('files', quota.poolBytes, showBytes),
      row('capsules, paused ones too', quota.capsules),
      row('capsules being created', quota.creatingCapsules),
      row('API calls in this minute', quota.apiCallsPerMin),
      ...(quota.plan === undefined ? [] : [['plan', quota.plan, '', '']]),
    ],
  )
}
