import { AppError } from '@wrenn/base'
import type { Quota } from '@wrenn/protocol'
import type { Limits } from '../../config.js'
import type { Db } from '../../store/database.js'
import { NEAR, noteQuotaUse, type QuotaUse } from '../../store/quota-levels.js'
import {
  findLargest,
  findLargestFiles,
  findQuota,
  findUsage,
  lockTeam,
  type TeamQuota,
  type Usage,
} from '../../store/usage.js'
import { type PoolUsageDeps, refreshPoolUsages } from '../hosts/index.js'
import type { CallMeter } from './call-meter.js'

const NAMED = 3
const GIB = 1024 ** 3

interface QuotaDeps extends Omit<PoolUsageDeps, 'limits'> {
  readonly callMeter: CallMeter
}

/** What a request is about to start. */
export interface Demand {
  /** Capsules that will run and do not yet. */
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  /** Capsules that do not exist yet. */
  readonly added: number
}

/** 0: no limit. */
interface TeamLimits {
  readonly running: number
  readonly vcpus: number
  readonly memoryMib: number
  readonly poolBytes: number
  readonly creating: number
}

/**
 * Takes the team's turn until the end of the transaction and checks that what starts now fits.
 * @throws AppError `pool_exhausted`, saying which limit, how much is used and what would free it; `limit_exceeded` for what waiting frees
 */
export async function reserve(tx: Db, teamId: string, limits: Limits, demand: Demand): Promise<void> {
  const max = limitsOf(await lockTeam(tx, teamId), limits)
  const used = await findUsage(tx, teamId)
  if (demand.added > 0 && exceeds(used.open + demand.added, limits.maxCapsules)) {
    throw exhausted(
      `The team may have ${limits.maxCapsules} capsules, paused ones too, and has ${used.open} (WRENN_MAX_CAPSULES); destroy one.`,
      { limit: 'capsules', max: limits.maxCapsules, used: used.open },
    )
  }
  checkCreating(max.creating, used.creating, demand.added)
  await checkRunning(tx, teamId, { max, used, demand })
  await checkPool(tx, teamId, max, used)
  await noteUse(tx, teamId, used.raised, usesOf(used, max, limits, demand))
}

/** What the team will use of what it may use, once it has what it asks for. */
function usesOf(used: Usage, max: TeamLimits, { maxCapsules }: Limits, demand: Demand): QuotaUse[] {
  const use = (quota: keyof Quota, before: number, more: number, limit: number): QuotaUse => {
    return { quota, before, used: before + more, limit }
  }
  return [
    use('running_capsules', used.running, demand.running, max.running),
    use('vcpus', used.vcpus, demand.vcpus, max.vcpus),
    use('memory_mb', used.memoryMib, demand.memoryMib, max.memoryMib),
    use('capsules', used.open, demand.added, maxCapsules),
  ]
}

/** Costs nothing where the team is not near any of its limits. */
async function noteUse(tx: Db, teamId: string, raised: number, uses: readonly QuotaUse[]): Promise<void> {
  const isNear = uses.some(({ used, limit }) => limit > 0 && used >= limit * NEAR)
  if (isNear || raised > 0) await noteQuotaUse(tx, teamId, uses)
}

/** The part of `reserve` for what only takes space. @throws AppError `pool_exhausted` */
export async function reserveSpace(tx: Db, teamId: string, limits: Limits): Promise<void> {
  const max = limitsOf(await lockTeam(tx, teamId), limits)
  await checkPool(tx, teamId, max, await findUsage(tx, teamId))
}

/** Whether `reserve` refused because of what files take, which is measured only now and then. */
export function isPoolFull(error: unknown): boolean {
  return AppError.is(error, 'pool_exhausted') && error.details?.limit === 'poolBytes'
}

/** What a team uses and what it may use. */
export async function readQuota(deps: QuotaDeps, teamId: string, limits: Limits): Promise<Quota> {
  const { db, callMeter } = deps
  await refreshPoolUsages({ ...deps, limits })
  const { plan, ...own } = await findQuota(db, teamId)
  const max = limitsOf(own, limits)
  const used = await findUsage(db, teamId)
  const use = (amount: number, limit: number) => ({ used: amount, limit: limit === 0 ? null : limit })
  return {
    running_capsules: use(used.running, max.running),
    vcpus: use(used.vcpus, max.vcpus),
    memory_mb: use(used.memoryMib, max.memoryMib),
    pool_bytes: use(used.poolBytes, max.poolBytes),
    capsules: use(used.open, limits.maxCapsules),
    creating_capsules: use(used.creating, max.creating),
    api_calls_per_min: use(await callMeter.calls(teamId), own.max_calls_per_min ?? limits.quota.apiCallsPerMin),
    plan,
  }
}

function limitsOf(team: TeamQuota, { quota }: Limits): TeamLimits {
  return {
    running: team.max_running ?? quota.runningCapsules,
    vcpus: team.max_vcpus ?? quota.vcpus,
    memoryMib: team.max_memory_mib ?? quota.memoryMib,
    poolBytes: team.max_pool_bytes ?? quota.poolBytes,
    creating: team.max_creating ?? quota.creatingCapsules,
  }
}

function exceeds(amount: number, max: number): boolean {
  return max > 0 && amount > max
}

function checkCreating(max: number, used: number, added: number): void {
  if (added === 0 || !exceeds(used + added, max)) return
  const knob = 'WRENN_QUOTA_CREATING_CAPSULES'
  const details = { limit: 'creating', max, used, asked: added }
  if (exceeds(added, max)) {
    throw exhausted(`The team may create ${max} capsules at a time; ask for fewer than ${added} (${knob}).`, details)
  }
  throw new AppError(
    'limit_exceeded',
    `The team may create ${max} capsules at a time and ${used} are being created (${knob}); try again when they run.`,
    { details: { ...details, retryAfterSec: 1 } },
  )
}

interface RunningCheck {
  readonly max: TeamLimits
  readonly used: Usage
  readonly demand: Demand
}

const running = [
  { key: 'running', by: 'created_at', unit: 'running capsules', knob: 'WRENN_QUOTA_RUNNING_CAPSULES' },
  { key: 'vcpus', by: 'vcpus', unit: 'vCPUs in running capsules', knob: 'WRENN_QUOTA_VCPUS' },
  { key: 'memoryMib', by: 'memory_mib', unit: 'MiB of memory in running capsules', knob: 'WRENN_QUOTA_MEMORY_MB' },
] as const

async function checkRunning(db: Db, teamId: string, { max, used, demand }: RunningCheck): Promise<void> {
  for (const { key, by, unit, knob } of running) {
    if (!exceeds(used[key] + demand[key], max[key])) continue
    const largest = await findLargest(db, teamId, by, NAMED)
    const names = largest.map((row) => `${called(row)} (vcpus ${row.vcpus}, ${row.memory_mib} MiB)`)
    const free = names.length === 0 ? '' : ` Pause or destroy a capsule, such as ${names.join(', ')}.`
    throw exhausted(
      `The team may use ${max[key]} ${unit}; ${used[key]} are used and ${demand[key]} more were asked for (${knob}).${free}`,
      { limit: key, max: max[key], used: used[key], asked: demand[key], capsules: largest.map(({ id }) => id) },
    )
  }
}

async function checkPool(db: Db, teamId: string, max: TeamLimits, used: Usage): Promise<void> {
  // How much a capsule will write is unknown; who is at the limit starts nothing new.
  if (max.poolBytes === 0 || used.poolBytes < max.poolBytes) return
  const capsules = (await findLargest(db, teamId, 'disk_bytes', NAMED)).filter(({ disk_bytes }) => disk_bytes > 0)
  const files = await findLargestFiles(db, teamId, NAMED)
  const names = [
    ...capsules.map((row) => ({ what: `capsule ${called(row)}`, bytes: row.disk_bytes })),
    ...files.map(({ kind, name, bytes }) => ({ what: `${kind} ${name}`, bytes })),
  ]
    .sort((a, b) => b.bytes - a.bytes)
    .slice(0, NAMED)
    .map(({ what, bytes }) => `${what} (${gib(bytes)})`)
  const free =
    names.length === 0 ? '' : ` Delete a snapshot or a checkpoint or destroy a capsule, such as ${names.join(', ')}.`
  throw exhausted(
    `The team may use ${gib(max.poolBytes)} of the pool and uses ${gib(used.poolBytes)} (WRENN_QUOTA_POOL_BYTES).${free}`,
    { limit: 'poolBytes', max: max.poolBytes, used: used.poolBytes },
  )
}

/** By what commands take, and by what its owner knows. */
function called({ id, name }: { readonly id: string; readonly name: string | null }): string {
  return name === null ? id : `${id} "${name}"`
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(bytes < GIB ? 3 : 1)} GiB`
}

function exhausted(message: string, details: Readonly<Record<string, unknown>>): AppError {
  return new AppError('pool_exhausted', message, { details })
}
