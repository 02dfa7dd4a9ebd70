import type * as wire from '@wrenn/protocol'
import type { CallOptions, Transport } from './transport.js'

/** How far back stats reach: in steps of 3 s, 30 s, 3 min, 12 min and 6 h. */
export type StatsRange = wire.StatsRange

/** Days in UTC, such as `2026-11-30`, both included. */
export interface UsageSpan {
  /** @default 29 days before `to` */
  readonly from?: string
  /** @default today */
  readonly to?: string
}

/** Which usage, and how it is summed up. */
export interface UsageOptions extends CallOptions, UsageSpan {
  /** With `month` there is a point for each month, and `from` and `to` become those of whole months. @default 'day' */
  readonly period?: 'day' | 'month'
}

/** What capsules held, and for how long, and what they sent. */
export interface UsageSums {
  readonly vcpuSeconds: number
  /** While awake; paused ones have their memory on disk. */
  readonly memoryGibSeconds: number
  /** Of the disk that they may fill, while paused too. */
  readonly diskGibSeconds: number
  /** Minutes of vCPUs. */
  readonly cpuMinutes: number
  /** MiB times minutes, with half of the memory of paused capsules. */
  readonly ramMibMinutes: number
  /** By their network cards. */
  readonly netRxBytes: number
  readonly netTxBytes: number
}

/** What was used on a day or in a month. */
export interface UsagePoint extends UsageSums {
  /** The day, or the first one of the month, in UTC. */
  readonly date: string
}

/** What a team's capsules used. */
export interface UsageInfo {
  readonly from: string
  readonly to: string
  /** Oldest first; of times in which nothing was used there is none. Today is until now. */
  readonly points: readonly UsagePoint[]
  readonly total: UsageSums
}

/** What one of all teams used. */
export interface TeamUsage extends UsageSums {
  readonly teamId: string
  /** `undefined` for one that is gone for good. */
  readonly teamName: string | undefined
}

/** What each team used. */
export interface AnyUsageInfo {
  readonly from: string
  readonly to: string
  /** Those that used anything, the most vCPU time first. */
  readonly teams: readonly TeamUsage[]
  readonly total: UsageSums
}

/** What capsules hold of the platform at a time; memory of paused ones counts half. */
export interface CapsuleLevels {
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
}

/** How many capsules run, and did. */
export interface CapsuleStats {
  readonly range: StatsRange
  readonly current: CapsuleLevels
  /** The highest of thirty days, each by itself. */
  readonly peaks: CapsuleLevels
  /** The highest in each step, oldest first. */
  readonly steps: readonly (CapsuleLevels & { readonly at: Date })[]
}

/** Exact sums, as text. */
export interface ExactUsage {
  readonly vcpuSeconds: string
  readonly memoryMibSeconds: string
  readonly pausedMibSeconds: string
  readonly diskMibSeconds: string
  readonly netRxBytes: string
  readonly netTxBytes: string
}

/** Whether what is rolled up is what the ledger says. */
export interface UsageCheck {
  /** The first day that was checked; `undefined` when there was none. */
  readonly from: string | undefined
  readonly to: string | undefined
  readonly days: number
  /** Nothing differs. */
  readonly isOk: boolean
  readonly differences: readonly {
    readonly period: 'day' | 'month'
    readonly date: string
    readonly teamId: string
    readonly template: string
    readonly rolledUp: ExactUsage | undefined
    readonly expected: ExactUsage | undefined
  }[]
  /** Ids of capsules whose newest entry in the ledger is not what they are. */
  readonly strays: readonly string[]
}

/** Which days were summed anew: of those that were asked for, the ones that are rolled up and of which the ledger is kept. */
export interface RecomputedUsageInfo {
  readonly from: string
  readonly to: string
  /** 0: none. */
  readonly days: number
}

/** What capsules of the team used, by the ledger of their changes. */
export class Usage {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /**
   * Day by day, or month by month.
   * @throws WrennError `invalid_request` for a span of more than 92 days, or 1,096 of months
   * @example
   * const { total } = await wrenn.usage.get({ from: '2026-11-01', to: '2026-11-30' })
   * console.log(total.vcpuSeconds / 3600, 'vCPU hours')
   */
  async get(options: UsageOptions = {}): Promise<UsageInfo> {
    const { from, to, period, ...call } = options
    const query = { from, to, period }
    const usage = await this.#transport.json<wire.CapsuleUsage>('GET', '/v1/capsules/usage', { ...call, query })
    return {
      from: usage.from,
      to: usage.to,
      points: usage.points.map(({ date, ...sums }) => ({ date, ...usageSums(sums) })),
      total: usageSums(usage.total),
    }
  }

  /** The same as a table of comma-separated values with a header. */
  async csv(options: UsageOptions = {}): Promise<string> {
    const { from, to, period, ...call } = options
    const query = { from, to, period, format: 'csv' }
    return await (await this.#transport.request('GET', '/v1/capsules/usage', { ...call, query })).text()
  }

  /** How many capsules run and what they hold: now, at most in thirty days, and in each step of `range`. */
  async stats(range: StatsRange = '1h', options: CallOptions = {}): Promise<CapsuleStats> {
    const query = { range }
    return capsuleStats(
      await this.#transport.json<wire.CapsuleStats>('GET', '/v1/capsules/stats', { ...options, query }),
    )
  }

  /** Makes the sums of days that have passed anew and compares them with those that are kept. */
  async verify(options: CallOptions & UsageSpan = {}): Promise<UsageCheck> {
    return await checkUsage(this.#transport, '/v1/capsules/usage/verify', options)
  }
}

/** Of all teams, or of one; in which `teamId` is asked for only by admins of the platform. */
export async function checkUsage(
  transport: Transport,
  path: string,
  options: CallOptions & UsageSpan & { readonly teamId?: string },
): Promise<UsageCheck> {
  const { from, to, teamId, ...call } = options
  const query = { from, to, team_id: teamId }
  const check = await transport.json<wire.UsageCheck>('GET', path, { ...call, query })
  return {
    from: check.from,
    to: check.to,
    days: check.days,
    isOk: check.ok,
    differences: check.differences.map(({ team_id, rolled_up, expected, ...where }) => ({
      ...where,
      teamId: team_id,
      rolledUp: rolled_up && exact(rolled_up),
      expected: expected && exact(expected),
    })),
    strays: check.strays,
  }
}

/** What each team used, for admins of the platform. */
export function anyUsage({ from, to, teams, total }: wire.AnyUsage): AnyUsageInfo {
  return {
    ...{ from, to, total: usageSums(total) },
    teams: teams.map(({ team_id, team_name, ...sums }) => ({
      teamId: team_id,
      teamName: team_name,
      ...usageSums(sums),
    })),
  }
}

function usageSums(sums: wire.UsageSums): UsageSums {
  return {
    vcpuSeconds: sums.vcpu_seconds,
    memoryGibSeconds: sums.memory_gib_seconds,
    diskGibSeconds: sums.disk_gib_seconds,
    cpuMinutes: sums.cpu_minutes,
    ramMibMinutes: sums.ram_mb_minutes,
    netRxBytes: sums.net_rx_bytes,
    netTxBytes: sums.net_tx_bytes,
  }
}

function exact(sums: NonNullable<wire.UsageCheck['differences'][number]['expected']>): ExactUsage {
  return {
    vcpuSeconds: sums.vcpu_seconds,
    memoryMibSeconds: sums.memory_mib_seconds,
    pausedMibSeconds: sums.paused_mib_seconds,
    diskMibSeconds: sums.disk_mib_seconds,
    netRxBytes: sums.net_rx_bytes,
    netTxBytes: sums.net_tx_bytes,
  }
}

function capsuleStats({ range, current, peaks, series }: wire.CapsuleStats): CapsuleStats {
  return {
    range,
    current: {
      running: current.running_count,
      vcpus: current.vcpus_reserved,
      memoryMib: current.memory_mb_reserved,
    },
    peaks: { running: peaks.running_count, vcpus: peaks.vcpus, memoryMib: peaks.memory_mb },
    steps: series.labels.map((label, index) => ({
      at: new Date(label),
      running: series.running[index] ?? 0,
      vcpus: series.vcpus[index] ?? 0,
      memoryMib: series.memory_mb[index] ?? 0,
    })),
  }
}
