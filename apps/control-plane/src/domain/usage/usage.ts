import { AppError, waitFor } from '@wrenn/base'
import {
  type AnyUsage,
  type CapsuleStats,
  type CapsuleUsage,
  type RecomputedUsage,
  type StatsRange,
  statsRanges,
  type UsageCheck,
  type UsagePeriod,
  type UsageSums,
  type VerifyUsageQuery,
} from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type { Actor } from '../../store/schema.js'
import type { DaySpan } from '../../store/usage-ledger.js'
import { findBuckets, findLevels, findStrays, type Levels, type Whose } from '../../store/usage-ledger.js'
import {
  type Difference,
  findPeaks,
  findRollUpState,
  findUsageByTeam,
  findUsageOf,
  findWrongDays,
  findWrongMonths,
  lockRollUps,
  type UsedSums,
} from '../../store/usage-roll-ups.js'
import { PLATFORM_TEAM_ID } from '../people/index.js'
import { dayAfter, daysOf, spanOf } from './days.js'
import { rollUp } from './roll-up.js'
import { fill, highestOf, type Steps, stepOf } from './series.js'

/** In answers of checks. */
const MOST = 1_000
const MIB_PER_GIB = 1024
/** Verifications at a time of one control plane, which has few connections to the database. */
const MAX_VERIFYING = 2
const RETRY_AFTER_SEC = 5
const ROLL_UP_WAIT_MS = 10_000

/** What capsules held of the platform, and for how long, by the ledger. */
export class Usage {
  readonly #db: Db
  /** Whose usage is being verified. */
  readonly #verifying = new Set<Whose>()

  constructor(db: Db) {
    this.#db = db
  }

  /** What a team's capsules used. @throws AppError `invalid_request` */
  async of(teamId: string, asked: VerifyUsageQuery, period: UsagePeriod): Promise<CapsuleUsage> {
    const { today } = await findRollUpState(this.#db)
    const span = spanOf(asked, today, period)
    const found = await findUsageOf(this.#db, teamId, span, period)
    const points = found.map(({ date, ...sums }) => ({ date, ...toSums(sums) }))
    return { ...span, points, total: toSums(added(found)) }
  }

  /** What each team used. @throws AppError `invalid_request` */
  async byTeam(asked: VerifyUsageQuery): Promise<AnyUsage> {
    const { today } = await findRollUpState(this.#db)
    const span = spanOf(asked, today, 'day')
    const found = await findUsageByTeam(this.#db, span)
    const teams = found.map(({ teamId, teamName, ...sums }) => ({
      team_id: teamId,
      ...(teamName === null ? {} : { team_name: teamName }),
      ...toSums(sums),
    }))
    return { ...span, teams, total: toSums(added(found)) }
  }

  /** How many of a team's capsules run, and ran. */
  async stats(teamId: string, range: StatsRange): Promise<CapsuleStats> {
    const { now, ...current } = await findLevels(this.#db, teamId)
    const month = await this.#longest(teamId, now)
    const { steps, levels } = range === '30d' ? month : await this.#recent(teamId, stepsUntil(now, range))
    const peaks = highestOf(month.levels)
    return {
      range,
      current: {
        running_count: current.running,
        vcpus_reserved: current.vcpus,
        memory_mb_reserved: current.memoryMib,
      },
      peaks: { running_count: peaks.running, vcpus: peaks.vcpus, memory_mb: peaks.memoryMib },
      series: {
        labels: levels.map((_, index) => new Date(timeOf(steps, index)).toISOString()),
        running: levels.map(({ running }) => running),
        vcpus: levels.map(({ vcpus }) => vcpus),
        memory_mb: levels.map(({ memoryMib }) => memoryMib),
      },
    }
  }

  /**
   * Compares what is rolled up with the ledger, day by day, as far as days have passed and the ledger is kept, and the ledger with capsules.
   * A few at a time, since each reads all of the ledger's days. @throws AppError `invalid_request`, `limit_exceeded`
   */
  async verify(asked: VerifyUsageQuery, teamId: Whose): Promise<UsageCheck> {
    if (this.#verifying.has(teamId) || this.#verifying.size >= MAX_VERIFYING) {
      const message = 'The usage is being verified already; try again when that has ended.'
      throw new AppError('limit_exceeded', message, { details: { retryAfterSec: RETRY_AFTER_SEC } })
    }
    this.#verifying.add(teamId)
    try {
      return await this.#verify(asked, teamId)
    } finally {
      this.#verifying.delete(teamId)
    }
  }

  async #verify(asked: VerifyUsageQuery, teamId: Whose): Promise<UsageCheck> {
    const span = await this.#rolledUp(asked)
    const days = daysOf(span)
    const differences: Difference[] = []
    for (let day = 0; day < days && differences.length < MOST; day++) {
      const date = dayAfter(span.from, day)
      differences.push(...(await findWrongDays(this.#db, { from: date, to: date }, teamId, MOST - differences.length)))
    }
    if (days > 0) differences.push(...(await findWrongMonths(this.#db, span, teamId, MOST)))
    const strays = await findStrays(this.#db, teamId, MOST)
    return {
      ...(days === 0 ? {} : span),
      days,
      ok: differences.length === 0 && strays.length === 0,
      differences: differences.slice(0, MOST).map(toDifference),
      strays,
    }
  }

  /** Rolls days that have passed up anew, as far as the ledger is kept. @throws AppError `invalid_request`, `conflict` while others do */
  async recompute(asked: VerifyUsageQuery, actor: Actor): Promise<RecomputedUsage> {
    const span = await this.#rolledUp(asked)
    const days = daysOf(span)
    for (let day = 0; day < days; day++) {
      await this.#recomputeDay(dayAfter(span.from, day))
    }
    if (days === 0) return { ...span, days }
    const details = { ...span, days: `${days}` }
    const resource = { type: 'team', id: PLATFORM_TEAM_ID } as const
    await writeAudit(this.#db, {
      teamId: PLATFORM_TEAM_ID,
      actor,
      action: 'usage.recompute',
      resource,
      scope: 'admin',
      details,
    })
    return { ...span, days }
  }

  /** A day that has just ended may be under way, of which a large platform has one for a while. */
  async #recomputeDay(date: string): Promise<void> {
    const recompute = async (tx: Db): Promise<true | undefined> => {
      const state = await lockRollUps(tx)
      if (state === undefined) return undefined
      if (state.keptFrom <= date) await rollUp(tx, date)
      return true
    }
    await waitFor(async () => await this.#db.transaction().execute(recompute), {
      timeoutMs: ROLL_UP_WAIT_MS,
      intervalMs: 100,
      code: 'conflict',
      what: 'another roll-up of days to end; those before it were made anew, go on a little later',
    })
  }

  /** The days of those that are rolled up and can be again. */
  async #rolledUp(asked: VerifyUsageQuery): Promise<DaySpan> {
    const { today, rolledUntil, keptFrom } = await findRollUpState(this.#db)
    const { from, to } = spanOf(asked, today, 'day')
    const last = dayAfter(rolledUntil, -1)
    return { from: from < keptFrom ? keptFrom : from, to: to > last ? last : to }
  }

  /** Thirty days: those that are rolled up by their peaks. */
  async #longest(teamId: string, now: Date): Promise<{ readonly steps: Steps; readonly levels: readonly Levels[] }> {
    const steps = stepsUntil(now, '30d')
    const { rolledUntil } = await findRollUpState(this.#db)
    const until = new Date(Math.max(Date.parse(rolledUntil), steps.from.getTime()))
    const [kept, { levels: recent }] = await Promise.all([
      findPeaks(this.#db, teamId, steps.from),
      this.#recent(teamId, { ...steps, from: until, count: steps.count - stepsBetween(steps, until) }),
    ])
    const peaks = new Map(
      kept.map(({ at, running, vcpus, memoryMib }) => [at.getTime(), { running, vcpus, memoryMib }]),
    )
    const levels = Array.from({ length: steps.count }, (_, index) => {
      const after = index - stepsBetween(steps, until)
      return (after < 0 ? peaks.get(timeOf(steps, index)) : recent[after]) ?? { running: 0, vcpus: 0, memoryMib: 0 }
    })
    return { steps, levels }
  }

  async #recent(teamId: string, steps: Steps): Promise<{ readonly steps: Steps; readonly levels: readonly Levels[] }> {
    const { from, count, stepSec } = steps
    const to = new Date(timeOf(steps, count))
    return { steps, levels: fill(steps, await findBuckets(this.#db, { from, to, stepSec }, teamId)) }
  }
}

/** The last one is that of now. */
function stepsUntil(now: Date, range: StatsRange): Steps {
  const { rangeSec, stepSec } = statsRanges[range]
  const count = rangeSec / stepSec
  const last = stepOf(now, stepSec)
  return { from: new Date(last.getTime() - (count - 1) * stepSec * 1000), count, stepSec }
}

function stepsBetween({ from, stepSec }: Steps, until: Date): number {
  return Math.round((until.getTime() - from.getTime()) / 1000 / stepSec)
}

function timeOf({ from, stepSec }: Steps, index: number): number {
  return from.getTime() + index * stepSec * 1000
}

function added(sums: readonly UsedSums[]): UsedSums {
  const sum = (of: (each: UsedSums) => number): number => sums.reduce((all, each) => all + of(each), 0)
  return {
    vcpuSeconds: sum(({ vcpuSeconds }) => vcpuSeconds),
    memoryMibSeconds: sum(({ memoryMibSeconds }) => memoryMibSeconds),
    pausedMibSeconds: sum(({ pausedMibSeconds }) => pausedMibSeconds),
    diskMibSeconds: sum(({ diskMibSeconds }) => diskMibSeconds),
    netRxBytes: sum(({ netRxBytes }) => netRxBytes),
    netTxBytes: sum(({ netTxBytes }) => netTxBytes),
  }
}

/** Sums in the database are exact; people need no more than these places. */
function toSums({ netRxBytes, netTxBytes, ...held }: UsedSums): UsageSums {
  const { vcpuSeconds, memoryMibSeconds, pausedMibSeconds, diskMibSeconds } = held
  return {
    cpu_minutes: rounded(vcpuSeconds / 60, 4),
    ram_mb_minutes: rounded((memoryMibSeconds + pausedMibSeconds / 2) / 60, 4),
    vcpu_seconds: rounded(vcpuSeconds, 3),
    memory_gib_seconds: rounded(memoryMibSeconds / MIB_PER_GIB, 3),
    disk_gib_seconds: rounded(diskMibSeconds / MIB_PER_GIB, 3),
    net_rx_bytes: netRxBytes,
    net_tx_bytes: netTxBytes,
  }
}

function rounded(value: number, places: number): number {
  return Math.round(value * 10 ** places) / 10 ** places
}

function toDifference({ period, date, teamId, template, rolledUp, expected }: Difference) {
  return {
    ...{ period, date, team_id: teamId, template },
    ...(rolledUp === null ? {} : { rolled_up: rolledUp }),
    ...(expected === null ? {} : { expected }),
  }
}
