import type { Limits } from '../../config.js'
import type { HostLoad } from '../../store/placement.js'

/** What a capsule takes of its host. */
export interface Demand {
  readonly vcpus: number
  readonly memoryMib: number
  /** That its host has. @default any */
  readonly hostTags?: readonly string[] | undefined
}

/** What a host has left for capsules. */
export interface Room {
  readonly id: string
  readonly answers: boolean
  /** Why it gets none, as the end of a sentence about it. */
  readonly closed?: string
  readonly load: HostLoad
  /** Which of the tags that are asked for it does not have. */
  readonly lacks: readonly string[]
  readonly freeVcpus: number
  readonly freeMib: number
  /** The free part of what it has least of, 0 to 1. */
  readonly score: number
  /** What that is. */
  readonly scarcest: string
  /** The free parts of all together, between hosts that have as much of that. */
  readonly spare: number
}

/** How much of a host is promised. */
type Share = Pick<Limits['hosts'], 'vcpusPerCpu' | 'memoryPercent'>

/** Paused capsules take no memory until they wake, which half of them are taken to do. */
const WAKE_PART = 0.5

/** By what the host has said; one that has not said what it has, has nothing. */
export function roomOf(
  load: HostLoad,
  { vcpusPerCpu, memoryPercent }: Share,
  wantedTags: readonly string[] = [],
): Room {
  const vcpus = (load.cpus ?? 0) * vcpusPerCpu
  const memoryMib = ((load.memoryMib ?? 0) * memoryPercent) / 100
  const [freeVcpus, freeMib] = [vcpus - load.usedVcpus, memoryMib - load.usedMib]
  const parts: readonly [string, number][] = [
    ['memory', part(freeMib - load.pausedMib * WAKE_PART, memoryMib)],
    ['CPUs', part(freeVcpus, vcpus)],
    ['pool', load.poolFree ?? 1],
  ]
  const [scarcest, score] = parts.reduce((least, each) => (each[1] < least[1] ? each : least))
  const spare = parts.reduce((sum, [, each]) => sum + each, 0)
  const lacks = wantedTags.filter((tag) => !load.tags.includes(tag))
  const closed = closedBecause(load, lacks)
  const { id, answers } = load
  return { id, answers, load, freeVcpus, freeMib, score, scarcest, spare, lacks, ...(closed && { closed }) }
}

/** The one with the most room first. */
export function byRoom(a: Room, b: Room): number {
  return b.score - a.score || b.spare - a.spare
}

/** In the order in which they are chosen: the freest first, or the fullest, and after all others what has no room for its paused capsules to wake. */
export function byChoice(placement: Limits['hosts']['placement']): (a: Room, b: Room) => number {
  if (placement === 'spread') return byRoom
  return (a, b) => {
    if (a.score > 0 !== b.score > 0) return a.score > 0 ? -1 : 1
    return a.score > 0 ? byRoom(b, a) : byRoom(a, b)
  }
}

export function hasRoom({ freeVcpus, freeMib }: Room, { vcpus, memoryMib }: Demand): boolean {
  return freeVcpus >= vcpus && freeMib >= memoryMib
}

/** `the tag gpu`, `the tags gpu and eu`. */
export function tagsNamed(tags: readonly string[]): string {
  return `the tag${tags.length === 1 ? '' : 's'} ${tags.join(' and ')}`
}

function closedBecause({ answers, isCordoned, isShort }: HostLoad, lacks: readonly string[]): string | undefined {
  if (!answers) return 'does not answer'
  if (lacks.length > 0) return `lacks ${tagsNamed(lacks)}`
  if (isCordoned) return 'is cordoned'
  return isShort ? 'runs short of memory or space' : undefined
}

function part(free: number, total: number): number {
  return total <= 0 ? 0 : free / total
}
