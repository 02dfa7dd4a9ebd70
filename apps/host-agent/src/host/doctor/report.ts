/** `warn`: capsules run, but slower or less well bounded. `fail`: something does not work. */
export type CheckStatus = 'ok' | 'warn' | 'fail'

/** The verdict on one property of the machine. */
export interface DoctorCheck {
  /** Stable: scripts select by it in `wrenn doctor --json`. */
  readonly id: string
  readonly title: string
  readonly status: CheckStatus
  /** What was found, in a sentence. */
  readonly detail: string
  /** What to do: a command or a setting. Also on an `ok` check when it could be better. */
  readonly fix?: string
}

/** All checks in the order in which they are shown. */
export interface DoctorReport {
  readonly checks: readonly DoctorCheck[]
  /** The one thing that would help most; `undefined` when there is nothing to gain. */
  readonly bestImprovement: DoctorCheck | undefined
}

/** What is broken comes before what is slow; among the slow, in this order. */
const byGain = ['engine', 'reflink', 'memory', 'disk']

/** Puts checks into a report. */
export function reportOf(checks: readonly DoctorCheck[]): DoctorReport {
  const rank = ({ id, status }: DoctorCheck): number => {
    if (status === 'fail') return -1
    const gain = byGain.indexOf(id)
    return gain < 0 ? byGain.length : gain
  }
  const candidates = checks.filter(({ status }) => status !== 'ok')
  return { checks, bestImprovement: [...candidates].sort((a, b) => rank(a) - rank(b))[0] }
}
