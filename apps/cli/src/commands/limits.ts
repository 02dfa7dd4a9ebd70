import { AppError } from '@wrenn/base'
import type { PlanLimits, TeamLimits } from '@wrenn/sdk'
import { type Command, InvalidArgumentError } from 'commander'
import type { CommonOptions } from '../context.js'
import { parseInteger, parseMib, showBytes } from '../units.js'

const BYTES_PER_MIB = 1024 ** 2

/** Null is what the plan, or else the platform gives, 0 no limit. */
type Limit = number | null

/** What {@link withLimits} reads. */
export interface LimitOptions extends CommonOptions {
  readonly running?: Limit
  readonly vcpus?: Limit
  readonly memory?: Limit
  readonly files?: Limit
  readonly creating?: Limit
  readonly calls?: Limit
}

/** Heads of the columns of {@link limitCells}. */
export const limitHeads = ['RUNNING', 'VCPUS', 'MEMORY', 'FILES', 'CREATING', 'CALLS/MIN'] as const

/** Adds an option for each limit. */
export function withLimits(command: Command): Command {
  return command
    .option('--running <capsules>', 'capsules that run at a time', limitBy(parseInteger))
    .option('--vcpus <count>', 'virtual CPUs of running capsules', limitBy(parseInteger))
    .option('--memory <MiB>', 'memory of running capsules: 16384 or 16g', limitBy(parseMib))
    .option('--files <MiB>', 'files of capsules, checkpoints and snapshots: 102400 or 100g', limitBy(parseMib))
    .option('--creating <capsules>', 'capsules that are being created at a time', limitBy(parseInteger))
    .option('--calls <count>', 'calls of the API in a minute', limitBy(parseInteger))
}

/** @throws AppError `invalid_request` when none of them was given */
export function needLimit(limits: PlanLimits, also = ''): void {
  if (Object.keys(limits).length > 0) return
  const names = `--running, --vcpus, --memory, --files, --creating or --calls${also}`
  throw new AppError('invalid_request', `Name a limit to set: ${names}.`)
}

/** Those that were given. */
export function limitsOf(options: LimitOptions): PlanLimits {
  const { running, vcpus, memory, files, creating, calls } = options
  return {
    ...(running === undefined ? {} : { runningCapsules: running }),
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(memory === undefined ? {} : { memoryMib: memory }),
    ...(files === undefined ? {} : { poolBytes: files === null ? null : files * BYTES_PER_MIB }),
    ...(creating === undefined ? {} : { creatingCapsules: creating }),
    ...(calls === undefined ? {} : { apiCallsPerMin: calls }),
  }
}

/** As the API says them. */
export function limitsJson(limits: TeamLimits): object {
  return {
    running_capsules: limits.runningCapsules ?? null,
    vcpus: limits.vcpus ?? null,
    memory_mb: limits.memoryMib ?? null,
    pool_bytes: limits.poolBytes ?? null,
    creating_capsules: limits.creatingCapsules ?? null,
    api_calls_per_min: limits.apiCallsPerMin ?? null,
  }
}

/** For people, in the order of {@link limitHeads}. */
export function limitCells(limits: TeamLimits): string[] {
  const show = (limit: number | undefined, unit: (value: number) => string = String): string =>
    limit === undefined ? 'default' : limit === 0 ? 'none' : unit(limit)
  return [
    show(limits.runningCapsules),
    show(limits.vcpus),
    show(limits.memoryMib, (mib) => `${mib} MiB`),
    show(limits.poolBytes, showBytes),
    show(limits.creatingCapsules),
    show(limits.apiCallsPerMin),
  ]
}

function limitBy(parse: (text: string) => number): (text: string) => Limit {
  return (text) => {
    if (text === 'default') return null
    if (text === 'none') return 0
    const limit = parse(text)
    if (limit === 0) throw new InvalidArgumentError('0 would be no limit: say none.')
    return limit
  }
}
