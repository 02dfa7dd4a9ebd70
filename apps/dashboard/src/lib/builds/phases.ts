import type { BuildInfo, BuildLine } from '@wrenn/sdk'

/** What became of a part of a build. */
export type PhaseState = 'cached' | 'done' | 'running' | 'failed' | 'cancelled' | 'interrupted'

/** A part of a build: getting what it begins with, a step, or making the template. */
export interface Phase {
  /** The same after a reload: for addresses. */
  readonly key: string
  /** Of all steps; `undefined` for what is none. */
  readonly number: number | undefined
  /** As the log calls it. */
  readonly title: string
  readonly state: PhaseState
  /** Why it was not taken from what earlier builds have kept. */
  readonly reason: string | undefined
  /** `undefined` for what was kept, and took none. */
  readonly startedAt: Date | undefined
  /** `undefined` while it goes on. */
  readonly endedAt: Date | undefined
  /** Where its lines begin in the log. */
  readonly first: number
  /** The line after its last one. */
  readonly end: number
}

const HEADING = /^(CACHED )?\[\d+\/\d+\] (.*)$/s
/** As the platform ends the heading of a step that it does; a Dockerfile that writes this itself deceives only its own author. */
const REASON =
  /^(.*) \((nothing kept is used|new step|step changed|a step before it changed|what it copies from changed|files changed|its result is not kept any more, or what it begins with changed|file .+ (?:changed|is new|is gone|more))\)$/s

/**
 * The parts of a build, of its log. Commands may print whatever they want, so nothing that they print decides anything: a part begins where
 * the platform counts another step, and its first line is the platform's own, as are all lines of `base`.
 */
export function phasesOf(
  lines: readonly BuildLine[],
  { state, endedAt }: Pick<BuildInfo, 'state' | 'endedAt'>,
): readonly Phase[] {
  const starts = startsOf(lines)
  const seen = new Map<string, number>()
  return starts.map((first, index): Phase => {
    const next = starts[index + 1]
    const end = next ?? lines.length
    const [head, last] = [lines[first], lines[end - 1]]
    const { step = '', message = '', at } = head ?? {}
    const heading = headingOf(step, message, lines.slice(first, end))
    const outcome = heading.isCached
      ? 'cached'
      : next === undefined
        ? lastState(state)
        : isWhole(step, last)
          ? 'done'
          : 'interrupted'
    const times = (seen.get(step) ?? 0) + 1
    seen.set(step, times)
    return {
      key: times === 1 ? step : `${step}.${times}`,
      number: /^\d+$/.test(step) ? Number(step) : undefined,
      ...{ title: heading.title, reason: heading.reason, state: outcome, first, end },
      startedAt: heading.isCached ? undefined : at,
      endedAt: heading.isCached ? undefined : next === undefined ? endedAt : lines[next]?.at,
    }
  })
}

/** Where parts begin. What several stages begin with are parts of their own. */
function startsOf(lines: readonly BuildLine[]): readonly number[] {
  const starts: number[] = []
  let step: string | undefined
  let hasFrom = false
  for (const [index, line] of lines.entries()) {
    const isFrom = line.step === 'base' && line.message.startsWith('FROM ')
    if (line.step !== step) {
      starts.push(index)
      step = line.step
      hasFrom = isFrom
    } else if (isFrom) {
      if (hasFrom) starts.push(index)
      hasFrom = true
    }
  }
  return starts
}

interface Heading {
  readonly title: string
  readonly isCached: boolean
  readonly reason: string | undefined
}

function headingOf(step: string, message: string, own: readonly BuildLine[]): Heading {
  if (step === 'base') {
    const from = own.find((line) => line.message.startsWith('FROM '))
    return { title: from?.message ?? 'Looking for what it begins with', isCached: false, reason: undefined }
  }
  if (step === 'finalize') return { title: 'Making the template', isCached: false, reason: undefined }
  const [, cached, text = message] = HEADING.exec(message) ?? []
  const [, title = text, reason] = (cached === undefined && REASON.exec(text)) || []
  return { title, isCached: cached !== undefined, reason }
}

function isWhole(step: string, last: BuildLine | undefined): boolean {
  return !/^\d+$/.test(step) || (last?.message.startsWith('DONE [') ?? false)
}

function lastState(state: BuildInfo['state']): PhaseState {
  if (state === 'error') return 'failed'
  if (state === 'cancelled') return 'cancelled'
  return state === 'ready' ? 'done' : 'running'
}
