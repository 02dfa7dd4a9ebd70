import { AppError } from '@wrenn/base'
import {
  type AnyUsageInfo,
  type CapsuleLevels,
  type CapsuleStats,
  type ExactUsage,
  type LagoHealth,
  type RecomputedUsageInfo,
  type StatsRange,
  statsRanges,
  type UsageCheck,
  type UsageInfo,
  type UsageSums,
} from '@wrenn/sdk'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { printable, table, writeFully } from '../output.js'
import { sparkline } from '../sparkline.js'
import { showBytes } from '../units.js'

const STATS_WIDTH = 60
const BYTES_PER_MIB = 2 ** 20

const help = `
Days are those of UTC, both ends included; today counts until now. Without days it is the last thirty.

Examples:
  wrenn usage --month 2026-11
  wrenn usage --from 2026-01-01 --months --csv > usage.csv
  wrenn usage teams --month 2026-11            of every team, for admins of the platform
  wrenn usage stats --range 24h                how many capsules ran, and when
  wrenn usage verify
  wrenn usage lago                             what the billing system does not have yet`

interface SpanOptions extends CommonOptions {
  readonly from?: string
  readonly to?: string
  readonly month?: Span
}

interface UsageOptions extends SpanOptions {
  readonly months?: boolean
  readonly csv?: boolean
}

interface Span {
  readonly from: string
  readonly to: string
}

/** `wrenn usage`: what capsules held of the platform, and for how long. */
export function addUsage(program: Command): void {
  const command = program
    .command('usage')
    .description('show what the capsules of your team used')
    .addHelpText('after', help)
  withJson(withTable(withSpan(command)).option('--months', 'sum up by whole months')).action(
    async (options: UsageOptions) => {
      const { config, output } = contextOf(options)
      const { usage } = await connect(config)
      const asked = { ...spanOf(options), ...(options.months === true ? ({ period: 'month' } as const) : {}) }
      if (options.csv === true) return await writeFully(process.stdout, Buffer.from(await usage.csv(asked)))
      const found = await usage.get(asked)
      output.result(usageJson(found), () => showUsage(found))
    },
  )
  addStats(command)
  addTeams(command)
  addVerify(command)
  addRecompute(command)
  addLago(command)
}

function addStats(usage: Command): void {
  const command = usage
    .command('stats')
    .description('show how many capsules of your team run, and ran')
    .addOption(new Option('--range <range>', 'how far back').choices(Object.keys(statsRanges)).default('1h'))
    .addHelpText('after', '\nExample:\n  wrenn usage stats --range 30d')
  withJson(command).action(async (options: CommonOptions & { readonly range: StatsRange }) => {
    const { config, output } = contextOf(options)
    const stats = await (await connect(config)).usage.stats(options.range)
    output.result(statsJson(stats), () => showStats(stats))
  })
}

function addTeams(usage: Command): void {
  const command = usage.command('teams').description('show what each team used; for admins of the platform')
  command.addHelpText('after', '\nExample:\n  wrenn usage teams --month 2026-11 --csv')
  withJson(withTable(withSpan(command))).action(async (options: UsageOptions) => {
    const { config, output } = contextOf(options)
    const { platform } = await connect(config)
    const span = spanOf(options)
    if (options.csv === true) return await writeFully(process.stdout, Buffer.from(await platform.usageCsv(span)))
    const found = await platform.usage(span)
    output.result(teamsJson(found), () => showTeams(found))
  })
}

const verifyHelp = `
Makes the sums of days that have passed anew of the ledger, as far as it is kept, and compares them with those that are kept: of the last
thirty days, or of those that are named, at most 92 at once.
Exits with 1 when something differs.

Examples:
  wrenn usage verify --month 2026-11
  wrenn usage verify --all --json              all teams, for admins of the platform`

interface VerifyOptions extends SpanOptions {
  readonly all?: boolean
}

function addVerify(usage: Command): void {
  const command = usage
    .command('verify')
    .description('check usage against the ledger of changes')
    .option('--all', 'of all teams; for admins of the platform')
    .addHelpText('after', verifyHelp)
  withJson(withSpan(command)).action(async (options: VerifyOptions) => {
    const { config, output } = contextOf(options)
    const wrenn = await connect(config)
    const span = spanOf(options)
    const check = options.all === true ? await wrenn.platform.verifyUsage(span) : await wrenn.usage.verify(span)
    output.result(checkJson(check), () => showCheck(check))
    if (!check.isOk) process.exitCode = 1
  })
}

function addRecompute(usage: Command): void {
  const command = usage
    .command('recompute <from> <to>')
    .description('make the sums of days anew of the ledger; for admins of the platform')
    .addHelpText('after', '\nExample:\n  wrenn usage recompute 2026-11-01 2026-11-30')
  withJson(command).action(async (from: string, to: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const made = await (await connect(config)).platform.recomputeUsage(parseDay(from), parseDay(to))
    output.result(made, () => showRecomputed(made))
  })
}

function addLago(usage: Command): void {
  const command = usage
    .command('lago')
    .description('show what Lago, the billing system, has not taken yet; for admins of the platform')
    .addHelpText('after', '\nExample:\n  wrenn usage lago --json')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { lago } = await (await connect(config)).platform.health()
    if (lago === undefined)
      throw new AppError('not_supported', 'This platform tells no Lago what teams use: WRENN_LAGO_URL is not set.')
    output.result(lagoJson(lago), () => showLago(lago))
  })
}

function lagoJson({ to, waiting, oldestWaitingAt, refused, problem }: LagoHealth): object {
  return { to, waiting, oldest_waiting_at: oldestWaitingAt, refused, problem }
}

function showLago({ to, waiting, oldestWaitingAt, refused, problem }: LagoHealth): string {
  if (oldestWaitingAt === undefined) return `Lago at ${to} has taken all events.`
  const since = oldestWaitingAt.toISOString()
  return [
    `${counted(waiting)} for Lago at ${to}, the oldest since ${since}; ${refused} of them refused by it.`,
    ...(problem === undefined ? [] : [printable(problem)]),
  ].join('\n')
}

function counted(events: number): string {
  return events === 1 ? '1 event waits' : `${events} events wait`
}

function showRecomputed({ from, to, days }: RecomputedUsageInfo): string {
  if (days === 0) return 'None of these days is both over and in the ledger.'
  return `Made ${days === 1 ? 'a day' : `${days} days`} anew, from ${from} to ${to}.`
}

function withSpan(command: Command): Command {
  return command
    .option('--from <day>', 'first day, such as 2026-11-01', parseDay)
    .option('--to <day>', 'last day', parseDay)
    .option('--month <month>', 'all days of a month, such as 2026-11', parseMonth)
}

function withTable(command: Command): Command {
  return command.option('--csv', 'comma-separated values with a header')
}

function spanOf({ from, to, month }: SpanOptions): Partial<Span> {
  if (month !== undefined && (from !== undefined || to !== undefined)) {
    throw new AppError('invalid_request', '--month says which days; leave --from and --to out.')
  }
  return month ?? { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) }
}

/** The platform knows which days there are. */
function parseDay(text: string): string {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) throw new InvalidArgumentError('Give a day such as 2026-11-30.')
  return text
}

function parseMonth(text: string): Span {
  const [, year, month] = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(text) ?? []
  if (year === undefined || month === undefined) throw new InvalidArgumentError('Give a month such as 2026-11.')
  const days = new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate()
  return { from: `${text}-01`, to: `${text}-${days}` }
}

/** Names as the API has them. */
function sumsJson(sums: UsageSums): object {
  return {
    cpu_minutes: sums.cpuMinutes,
    ram_mb_minutes: sums.ramMibMinutes,
    vcpu_seconds: sums.vcpuSeconds,
    memory_gib_seconds: sums.memoryGibSeconds,
    disk_gib_seconds: sums.diskGibSeconds,
    net_rx_bytes: sums.netRxBytes,
    net_tx_bytes: sums.netTxBytes,
  }
}

function usageJson({ from, to, points, total }: UsageInfo): object {
  return { from, to, points: points.map(({ date, ...sums }) => ({ date, ...sumsJson(sums) })), total: sumsJson(total) }
}

function teamsJson({ from, to, teams, total }: AnyUsageInfo): object {
  const list = teams.map(({ teamId, teamName, ...sums }) => ({
    team_id: teamId,
    team_name: teamName,
    ...sumsJson(sums),
  }))
  return { from, to, teams: list, total: sumsJson(total) }
}

function checkJson({ isOk, differences, ...check }: UsageCheck): object {
  return {
    ...check,
    ok: isOk,
    differences: differences.map(({ teamId, rolledUp, expected, ...rest }) => ({
      ...rest,
      team_id: teamId,
      rolled_up: exactJson(rolledUp),
      expected: exactJson(expected),
    })),
  }
}

function exactJson(usage: ExactUsage | undefined): object | undefined {
  if (usage === undefined) return undefined
  return {
    vcpu_seconds: usage.vcpuSeconds,
    memory_mib_seconds: usage.memoryMibSeconds,
    paused_mib_seconds: usage.pausedMibSeconds,
    disk_mib_seconds: usage.diskMibSeconds,
    net_rx_bytes: usage.netRxBytes,
    net_tx_bytes: usage.netTxBytes,
  }
}

function levelsJson({ running, vcpus, memoryMib }: CapsuleLevels): object {
  return { running_count: running, vcpus, memory_mb: memoryMib }
}

function statsJson({ range, current, peaks, steps }: CapsuleStats): object {
  return {
    range,
    current: levelsJson(current),
    peaks: levelsJson(peaks),
    steps: steps.map(({ at, ...levels }) => ({ at, ...levelsJson(levels) })),
  }
}

function showStats({ range, current, peaks, steps }: CapsuleStats): string {
  const [first] = steps
  if (first === undefined) return 'Nothing is known yet.'
  const { rangeSec, stepSec } = statsRanges[range]
  const fromMs = first.at.getTime()
  const span = { fromMs, toMs: fromMs + rangeSec * 1000, width: Math.min(STATS_WIDTH, rangeSec / stepSec) }
  const lines: readonly [string, (levels: CapsuleLevels) => number, (value: number) => string][] = [
    ['Running', ({ running }) => running, String],
    ['vCPUs', ({ vcpus }) => vcpus, String],
    ['Memory', ({ memoryMib }) => memoryMib, (mib) => showBytes(mib * BYTES_PER_MIB)],
  ]
  const shown = lines.map(([name, of, format]) => {
    const line = sparkline(
      steps.map((step) => ({ atMs: step.at.getTime(), value: of(step) })),
      span,
    )
    return `${name.padEnd(9)} ${line}  ${format(of(current))} now, at most ${format(of(peaks))} in thirty days`
  })
  return shown.join('\n')
}

const HEADS = ['VCPU HOURS', 'MEMORY GIB HOURS', 'DISK GIB HOURS', 'RECEIVED', 'SENT']

function cells({ vcpuSeconds, memoryGibSeconds, diskGibSeconds, netRxBytes, netTxBytes }: UsageSums): string[] {
  const held = [vcpuSeconds, memoryGibSeconds, diskGibSeconds].map((seconds) => (seconds / 3600).toFixed(2))
  return [...held, showBytes(netRxBytes), showBytes(netTxBytes)]
}

function showUsage({ from, to, points, total }: UsageInfo): string {
  if (points.length === 0) return `Nothing was used from ${from} to ${to}.`
  return table(
    ['DATE', ...HEADS],
    [...points.map(({ date, ...sums }) => [date, ...cells(sums)]), ['', ...cells(total)]],
  )
}

function showTeams({ from, to, teams, total }: AnyUsageInfo): string {
  if (teams.length === 0) return `Nothing was used from ${from} to ${to}.`
  const rows = teams.map(({ teamId, teamName, ...sums }) => [teamId, printable(teamName ?? ''), ...cells(sums)])
  return table(['TEAM', 'NAME', ...HEADS], [...rows, ['', '', ...cells(total)]])
}

function showCheck({ from, to, days, isOk, differences, strays }: UsageCheck): string {
  const checked = days === 0 ? 'No day has passed that can be checked.' : `Checked ${days} days, ${from} to ${to}.`
  if (isOk) return `${checked} Nothing differs.`
  const rows = differences.map(({ date, period, teamId, template, rolledUp, expected }) => [
    ...[period === 'month' ? date.slice(0, 7) : date, teamId, printable(template)],
    ...[rolledUp?.vcpuSeconds ?? '-', expected?.vcpuSeconds ?? '-'],
  ])
  return [
    checked,
    ...(rows.length === 0 ? [] : [table(['DATE', 'TEAM', 'TEMPLATE', 'VCPU SECONDS', 'BY THE LEDGER'], rows)]),
    ...(strays.length === 0 ? [] : [`Capsules that the ledger does not have as they are: ${strays.join(', ')}`]),
  ].join('\n')
}
