/** A resolution that is kept for some time. */
export interface Tier {
  /** Between points. */
  readonly stepSec: number
  /** Of one row. A row of the next tier has one point or more for each row of this one. */
  readonly spanSec: number
  readonly keepSec: number
}

/** The finest first; the host agent samples in its steps and hands out its spans. */
export const tiers = [
  { stepSec: 5, spanSec: 15, keepSec: 600 },
  { stepSec: 30, spanSec: 300, keepSec: 7_200 },
  { stepSec: 300, spanSec: 3_600, keepSec: 86_400 },
] as const satisfies readonly Tier[]

/** Number of the tier that reaches back so far, the coarsest for what none does. */
export function tierFor(backSec: number): number {
  const found = tiers.findIndex(({ keepSec }) => backSec <= keepSec)
  return found < 0 ? tiers.length - 1 : found
}

/** @throws Error for a number of no tier, which is a bug */
export function tierAt(number: number): Tier {
  const tier = tiers[number]
  if (tier === undefined) throw new Error(`there is no tier ${number}`)
  return tier
}

/** Begin of the step or span of `lengthSec` that a time is in. */
export function beginOf(atSec: number, lengthSec: number): number {
  return atSec - (atSec % lengthSec)
}
