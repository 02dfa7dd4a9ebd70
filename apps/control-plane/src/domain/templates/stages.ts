import type { BuildPlan, BuildStep } from '../../store/schema.js'
import { hashJson } from '../operations/index.js'
import { hashesOf } from './chain.js'
import type { ResolvedOrigin } from './origin.js'

/** A stage of a build, with all that decides what comes of it. */
export interface PlannedStage {
  /** Its place among all, the one that becomes the template last. */
  readonly at: number
  readonly from: string
  /** Those that copy from a stage name their files by the hash that these are kept by. */
  readonly steps: readonly BuildStep[]
  readonly origin: ResolvedOrigin
  readonly hashes: readonly string[]
  /** Steps of the stages before. */
  readonly offset: number
}

/** All stages of a plan, the one that becomes the template last. */
export function allStages({ stages = [], from, steps }: Pick<BuildPlan, 'stages' | 'from' | 'steps'>) {
  return [...stages, { from, steps }]
}

/** As whom and where steps of a Dockerfile begin, where what they begin with is the platform's own. */
const DOCKERFILE_STATE = { user: 'root', cwd: '/' } as const

/** The stages of a plan, in their order. @param originOf what a name stands for now */
export async function planStages(
  plan: BuildPlan,
  originOf: (from: string) => Promise<ResolvedOrigin>,
  isBuiltIn: (template: string) => Promise<boolean>,
): Promise<readonly PlannedStage[]> {
  const planned: PlannedStage[] = []
  for (const [at, { from, steps: written }] of allStages(plan).entries()) {
    const found = await originOf(from)
    const begins = plan.isDockerfile === true && (await isBuiltIn(found.template))
    const origin = begins ? { ...found, ...DOCKERFILE_STATE } : found
    const steps = written.map((step) => {
      const source = step.stage === undefined ? undefined : planned[step.stage]
      return source === undefined ? step : { ...step, filesHash: stageFilesHash(source, step.args[0] ?? '') }
    })
    const before = planned.at(-1)
    const offset = before === undefined ? 0 : before.offset + before.steps.length
    planned.push({ at, from, steps, origin, hashes: hashesOf(identityOf(origin), steps), offset })
  }
  return planned
}

/** By which files of a stage are kept: the same for as long as all that led to the stage is. */
function stageFilesHash({ hashes, origin }: PlannedStage, source: string): string {
  return hashJson({ stage: hashes.at(-1) ?? hashJson(identityOf(origin)), source })
}

/** What is told of an origin, what is in its memory, and what is started at the end decides nothing that its files do not. */
function identityOf({ note: _, started: __, container: ___, ...identity }: ResolvedOrigin) {
  return identity
}

/**
 * Which files of which stages are to be gathered for the last one, by stage.
 * @param doneOf how many steps of a stage are there already
 * @param isKept whether files of a hash are there
 */
export async function missingFiles(
  stages: readonly PlannedStage[],
  doneOf: (stage: PlannedStage) => Promise<number>,
  isKept: (hash: string) => Promise<boolean>,
): Promise<ReadonlyMap<number, ReadonlyMap<string, string>>> {
  const missing = new Map<number, Map<string, string>>()
  const visited = new Set<number>()
  const visit = async (stage: PlannedStage | undefined): Promise<void> => {
    if (stage === undefined || visited.has(stage.at)) return
    visited.add(stage.at)
    for (const { stage: source, filesHash = '', args } of stage.steps.slice(await doneOf(stage))) {
      if (source === undefined || (await isKept(filesHash))) continue
      missing.set(source, (missing.get(source) ?? new Map<string, string>()).set(filesHash, args[0] ?? ''))
      await visit(stages[source])
    }
  }
  await visit(stages.at(-1))
  return missing
}
