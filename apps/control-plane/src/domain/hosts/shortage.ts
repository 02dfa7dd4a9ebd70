import type { Shortage } from '../../store/hosts.js'

/** Below this part of the whole, capsules are soon paused or refused. */
export const MIN_FREE = 0.1
/** A shortage is over only above it, so that one that comes and goes is told of once. */
const ENOUGH_FREE = 0.15

/** What is left of something of a host, in bytes; of what it does not say there is enough. */
export function shortageOf(free: bigint, total: bigint): Shortage {
  const part = total === 0n ? 1 : Number(free) / Number(total)
  return { isShort: part < MIN_FREE, isScarce: part < ENOUGH_FREE }
}
