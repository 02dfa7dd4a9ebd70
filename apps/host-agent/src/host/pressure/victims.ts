/** A running capsule, as the choice of what to pause sees it. */
export interface PressureCapsule {
  readonly id: string
  /** Since its last activity. */
  readonly idleMs: number
  /** What keeps it awake (see GetActivity); empty: idle. `operation` puts it last, for a pause would have to wait. */
  readonly reasons: readonly string[]
  /** What a pause gives back to the host. */
  readonly memoryBytes: number
  /** By which its files in the pool grew of late; memory and disk. */
  readonly grownBytesPerSec: number
  /** Higher stays longer among equals (idle or busy). @default 0 */
  readonly priority?: number
}

/** What the host lacks, and how much of it pauses should make up for. */
export interface Shortage {
  readonly kind: 'memory' | 'pool'
  readonly missingBytes: number
}

/** A pause frees nothing of the pool but stops its growth: this long a growth counts as what it gains. */
const POOL_HORIZON_SEC = 60

/**
 * Whom to pause, in this order: idle before busy before those with an operation under way; then lower priority; the idle by
 * how long they are, the busy by how fast they grow, then by size. No more than needed to make up for `missingBytes`, and
 * nobody whose pause would gain nothing. Fewer than needed when all together do not suffice.
 */
export function chooseVictims(capsules: readonly PressureCapsule[], shortage: Shortage): readonly string[] {
  const gain = (capsule: PressureCapsule): number =>
    shortage.kind === 'memory' ? capsule.memoryBytes : capsule.grownBytesPerSec * POOL_HORIZON_SEC
  const chosen: PressureCapsule[] = []
  let missing = shortage.missingBytes
  for (const capsule of [...capsules].sort(compareVictims)) {
    if (missing <= 0) break
    if (gain(capsule) <= 0) continue
    chosen.push(capsule)
    missing -= gain(capsule)
  }
  return withoutNeedless(chosen, gain, -missing).map(({ id }) => id)
}

/** A large one at the end may make smaller ones before it needless: the busiest is let go first. */
function withoutNeedless(
  chosen: readonly PressureCapsule[],
  gain: (capsule: PressureCapsule) => number,
  surplus: number,
): readonly PressureCapsule[] {
  let left = surplus
  const kept = chosen.toReversed().filter((capsule) => {
    if (gain(capsule) > left) return true
    left -= gain(capsule)
    return false
  })
  return kept.toReversed()
}

function compareVictims(a: PressureCapsule, b: PressureCapsule): number {
  return (
    classOf(a) - classOf(b) ||
    (a.priority ?? 0) - (b.priority ?? 0) ||
    (classOf(a) === 0 ? b.idleMs - a.idleMs : b.grownBytesPerSec - a.grownBytesPerSec) ||
    b.memoryBytes - a.memoryBytes ||
    (a.id < b.id ? -1 : 1)
  )
}

function classOf({ reasons }: PressureCapsule): 0 | 1 | 2 {
  if (reasons.includes('operation')) return 2
  return reasons.length === 0 ? 0 : 1
}
