import { AppError, errorText, type Logger, type ReachStep } from '@wrenn/base'
import type { BuildLimits } from '../../config.js'
import type { Db } from '../../store/database.js'
import type { SnapshotRow } from '../../store/schema.js'
import { listSpentSnapshots } from '../../store/step-results.js'
import {
  expireDrafts,
  forgetBuildCapsule,
  type LeftCapsule,
  listLeftCapsules,
  pruneBuilds,
} from '../../store/template-builds.js'
import type { Capsules } from '../capsules/index.js'
import type { Snapshots } from '../points/index.js'
import { Rounds } from '../rounds.js'
import { type BuildFiles, UPLOAD_SPARE_MS } from './build-files.js'

const AT_ONCE = 50
const PRUNE_EVERY_MS = 10 * 60_000
/** Of a team, of builds that have ended. */
const KEPT_BUILDS = 100
const PRUNE_LIMIT = 1_000

interface HousekeepingDeps {
  readonly db: Db
  readonly capsules: Pick<Capsules, 'destroy'>
  readonly snapshots: Pick<Snapshots, 'discard'>
  readonly files: Pick<BuildFiles, 'prune'>
  readonly limits: BuildLimits
  /** How long builds that have ended are known. */
  readonly retentionMs: number
  readonly logger: Logger
  readonly reach: ReachStep
  readonly lookEveryMs: number
}

/** Ends and removes what builds have left: capsules, results beyond the limits, uploads, records. Several may do it at once. */
export class BuildHousekeeping extends Rounds {
  constructor(deps: HousekeepingDeps) {
    let prunedAt = Number.NEGATIVE_INFINITY
    const round = async (): Promise<void> => {
      await endCapsules(deps)
      await discardSnapshots(deps)
      if (performance.now() - prunedAt < PRUNE_EVERY_MS) return
      await prune(deps)
      prunedAt = performance.now()
    }
    const onFailure = (error: unknown): void =>
      deps.logger.warn({ error: errorText(error) }, 'template_build.housekeeping_failed')
    super(round, deps.lookEveryMs, onFailure)
  }
}

async function endCapsules(deps: HousekeepingDeps): Promise<void> {
  const builds = await listLeftCapsules(deps.db, AT_ONCE)
  const what = ({ id: buildId, capsule_id: capsuleId }: LeftCapsule) => ({ buildId, capsuleId })
  await each(deps, builds, what, (build) => endCapsule(deps, build))
}

async function endCapsule({ db, capsules, reach }: HousekeepingDeps, build: LeftCapsule): Promise<void> {
  const { id, team_id: teamId, capsule_id: capsuleId } = build
  if (capsuleId === null) return
  await capsules.destroy(teamId, capsuleId, { waitMs: 0, reason: 'build' }).catch((error: unknown) => {
    if (!AppError.is(error, 'capsule_not_found')) throw error
  })
  reach('build:cleared')
  await forgetBuildCapsule(db, id, capsuleId)
}

async function discardSnapshots(deps: HousekeepingDeps): Promise<void> {
  const { cacheResults: maxResults, cacheMs: maxUnusedMs } = deps.limits
  const spent = await listSpentSnapshots(deps.db, { maxResults, maxUnusedMs }, AT_ONCE)
  const what = ({ id: snapshotId, team_id: teamId }: SnapshotRow) => ({ snapshotId, teamId })
  await each(deps, spent, what, async ({ id }) => void (await deps.snapshots.discard(id)))
}

/** One that cannot go keeps no other from it, nor what else builds have left; its own turn comes again with the next round. */
async function each<T>(
  { logger }: HousekeepingDeps,
  items: readonly T[],
  what: (item: T) => Readonly<Record<string, unknown>>,
  end: (item: T) => Promise<void>,
): Promise<void> {
  for (const item of items) {
    try {
      await end(item)
    } catch (error) {
      logger.warn({ ...what(item), error: errorText(error) }, 'template_build.leftover_stays')
    }
  }
}

async function prune({ db, files, limits, retentionMs }: HousekeepingDeps): Promise<void> {
  const { timeoutMs, cacheMs } = limits
  const message = 'Nobody has said in time of what it is made.'
  await expireDrafts(db, timeoutMs + UPLOAD_SPARE_MS, { message })
  await pruneBuilds(db, { olderThanMs: retentionMs, kept: KEPT_BUILDS }, PRUNE_LIMIT)
  await files.prune(Math.max(cacheMs, timeoutMs + UPLOAD_SPARE_MS))
}
