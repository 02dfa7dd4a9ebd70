import type { BuildPlan, StepTrace } from '../../store/schema.js'
import { hashJson } from '../operations/index.js'
import { isKept, stepIdentity } from './chain.js'
import { allStages, type PlannedStage } from './stages.js'

const MAX_NAMED = 3

/** What of a plan is remembered, in the order of all steps. */
export function traceOf(plan: BuildPlan, files: readonly StepTrace['files'][] = []): StepTrace[] {
  const steps = allStages(plan).flatMap(({ steps: own }) => own)
  return steps.map((step, index) => ({
    hash: hashJson(stepIdentity(step)),
    ...(step.filesHash === undefined ? {} : { filesHash: step.filesHash }),
    ...(files[index] === undefined ? {} : { files: files[index] }),
  }))
}

/**
 * Why each step of a stage that is not taken from what was kept is done, for people; `undefined` where there is nothing to say: of a first
 * build, and of steps that are done each time.
 * @param done how many steps are taken from what was kept
 * @param now what the build is made of, and `before` the one before it
 */
export function missReasons(
  { steps, offset }: PlannedStage,
  done: number,
  {
    now,
    before,
    isForced,
  }: {
    readonly now: readonly StepTrace[]
    readonly before: readonly StepTrace[] | undefined
    readonly isForced: boolean
  },
): readonly (string | undefined)[] {
  let changed = false
  return steps.map((step, index) => {
    if (index < done) return undefined
    if (isForced) return isKept(step) ? 'nothing kept is used' : undefined
    if (before === undefined) return undefined
    const reason = changed ? undefined : changeOf(now[offset + index], before[offset + index])
    const isFirst = !changed
    changed ||= reason !== undefined
    if (reason !== undefined) return reason
    if (!isKept(step)) return undefined
    if (!isFirst) return 'a step before it changed'
    changed = true
    return step.stage === undefined
      ? 'its result is not kept any more, or what it begins with changed'
      : 'what it copies from changed'
  })
}

function changeOf(now: StepTrace | undefined, before: StepTrace | undefined): string | undefined {
  if (before === undefined) return 'new step'
  if (now?.hash !== before.hash) return 'step changed'
  if (now.filesHash === before.filesHash) return undefined
  return filesReason(now.files, before.files)
}

function filesReason(now: StepTrace['files'], before: StepTrace['files']): string {
  if (now === undefined || before === undefined) return 'files changed'
  const [current, former] = [new Map(now), new Map(before)]
  const changes = [
    ...now.flatMap(([path, digest]) => {
      const known = former.get(path)
      if (known === digest) return []
      return [`${path} ${known === undefined ? 'is new' : 'changed'}`]
    }),
    ...before.flatMap(([path]) => (current.has(path) ? [] : [`${path} is gone`])),
  ]
  const more = changes.length - MAX_NAMED
  const named = changes.slice(0, MAX_NAMED).join(', ')
  return changes.length === 0 ? 'files changed' : `file ${named}${more > 0 ? ` and ${more} more` : ''}`
}
