import type { BuildPlan, BuildStep } from '../../store/schema.js'
import { hashJson } from '../operations/index.js'

/** What a build begins with. */
export interface Origin {
  /** Changes when its content does. */
  readonly identity: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskSizeMib: number
  readonly user: string
  readonly cwd: string
}

/** The hash of everything up to and with each step. Two builds that agree in one agree in all that led to it. */
export function hashesOf(origin: Origin, steps: readonly BuildStep[]): readonly string[] {
  let hash = hashJson(origin)
  return steps.map((step) => {
    hash = hashJson({ before: hash, ...stepIdentity(step), filesHash: step.filesHash ?? null })
    return hash
  })
}

/** All that decides what a step does, but its files. Of secrets these are their names alone: another value makes no other step. */
export function stepIdentity({ type, args, shell, envs, secrets, scratch }: BuildStep): object {
  // What is `undefined` is in no hash.
  return { type, args, shell, envs, secrets, scratch }
}

/** How many steps, from the first on, may be taken from what was kept. */
export function cacheableSteps({ force, steps }: BuildPlan): number {
  if (force) return 0
  const forced = steps.findIndex((step) => step.force)
  return forced === -1 ? steps.length : forced
}

/** Whether its result is worth keeping; the others are done again in a moment. */
export function isKept({ type }: BuildStep): boolean {
  return type === 'RUN' || type === 'COPY'
}
