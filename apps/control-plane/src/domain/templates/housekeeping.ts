import { AppError, errorText, type Logger, type ReachStep } from '@wrenn/base'
import type { BuildLimits } from '../../config.js'
import type { Db } from '../../store/database.js'
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
  for (const build of await listLeftCapsules(deps.db, AT_ONCE)) {
    try {
      await endCapsule(deps, build)
    } catch (error) {
      // The others' turn comes all the same, and that of what else builds have left; this one's again with the next round.
      deps.logger.warn({ buildId: build.id, error: errorText(error) }, 'template_build.capsule_not_ended')
    }
  }
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

async function discardSnapshots({ db, snapshots, limits }: HousekeepingDeps): Promise<void> {
  const { cacheResults: maxResults, cacheMs: maxUnusedMs } = limits
  for (const { id } of await listSpentSnapshots(db, { maxResults, maxUnusedMs }, AT_ONCE)) await snapshots.discard(id)
}

async function prune({ db, files, limits, retentionMs }: HousekeepingDeps): Promise<void> {
  const { timeoutMs, cacheMs } = limits
  const message = 'Nobody has said in time of what it is made.'
  await expireDrafts(db, timeoutMs + UPLOAD_SPARE_MS, { message })
  await pruneBuilds(db, { olderThanMs: retentionMs, kept: KEPT_BUILDS }, PRUNE_LIMIT)
  await files.prune(Math.max(cacheMs, timeoutMs + UPLOAD_SPARE_MS))
}
