/** A place that a capsule which learns has used. */
export interface Destination {
  readonly protocol: 'tcp' | 'udp' | 'icmp'
  /** Absent where nothing told it. */
  readonly name?: string | undefined
  /** Who told the name: the connection itself, or an answer of the resolver that had the address. */
  readonly namedBy?: 'connection' | 'lookup' | undefined
  /** Of a name, the one that was used last. */
  readonly address: string
  /** 0 where the protocol has none. */
  readonly port: number
  /** Connections, or flows of datagrams. */
  readonly count: number
}

/** What was learned of one capsule. */
export interface Learned {
  /** The most used first. */
  readonly destinations: readonly Destination[]
  /** False when there was more than is kept, or some of it is not known any more. */
  readonly isComplete: boolean
}

interface DestinationLimits {
  readonly perSource: number
  readonly all: number
}

const LIMITS: DestinationLimits = { perSource: 512, all: 32_768 }

interface Kept {
  readonly byKey: Map<string, Destination>
  isComplete: boolean
}

/** Nothing was learned. */
export const nothingLearned: Learned = { destinations: [], isComplete: true }

/** What was learned is not known any more. */
export const lostLearned: Learned = { destinations: [], isComplete: false }

/** What sources have used, counted: the first so many of each. */
export class Destinations {
  readonly #limits: DestinationLimits
  readonly #bySource = new Map<string, Kept>()
  #count = 0

  constructor(limits: DestinationLimits = LIMITS) {
    this.#limits = limits
  }

  note(source: string, used: Omit<Destination, 'count'>, times = 1): void {
    const kept = this.#bySource.get(source) ?? { byKey: new Map<string, Destination>(), isComplete: true }
    this.#bySource.set(source, kept)
    const key = keyOf(used)
    const before = kept.byKey.get(key)
    if (before === undefined) {
      if (kept.byKey.size >= this.#limits.perSource || this.#count >= this.#limits.all) {
        kept.isComplete = false
        return
      }
      this.#count += 1
    }
    kept.byKey.set(key, { ...used, count: (before?.count ?? 0) + times })
  }

  /** One that was noted has told its name since. */
  rename(source: string, noted: Omit<Destination, 'count'>, named: Omit<Destination, 'count'>): void {
    const kept = this.#bySource.get(source)
    const key = keyOf(noted)
    const before = kept?.byKey.get(key)
    if (kept !== undefined && before !== undefined) {
      if (before.count > 1) kept.byKey.set(key, { ...before, count: before.count - 1 })
      else if (kept.byKey.delete(key)) this.#count -= 1
    }
    this.note(source, named)
  }

  list(source: string): Learned {
    const kept = this.#bySource.get(source)
    if (kept === undefined) return nothingLearned
    return { destinations: sorted([...kept.byKey.values()]), isComplete: kept.isComplete }
  }

  forget(source: string): void {
    this.#count -= this.#bySource.get(source)?.byKey.size ?? 0
    this.#bySource.delete(source)
  }
}

/** What was learned in several places, as one. */
export function joinLearned(...all: readonly Learned[]): Learned {
  const room = all.length * LIMITS.perSource
  const joined = new Destinations({ perSource: room, all: room })
  for (const { destinations } of all) {
    for (const { count, ...used } of destinations) joined.note('', used, count)
  }
  const { destinations, isComplete } = joined.list('')
  return { destinations, isComplete: isComplete && all.every((each) => each.isComplete) }
}

/** Names alone where the connection said one: its addresses change. */
function keyOf({ protocol, name, namedBy, address, port }: Omit<Destination, 'count'>): string {
  return JSON.stringify([protocol, namedBy === 'connection' ? name : [name, address], port])
}

function sorted(destinations: readonly Destination[]): readonly Destination[] {
  return [...destinations].sort((a, b) => b.count - a.count)
}
