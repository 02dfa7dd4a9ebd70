/** How many connections there may be. */
export interface PlaceLimits {
  readonly all: number
  readonly perSource: number
}

/** Something that takes a place as long as it is open. */
interface Occupant {
  /** Gives its place back, at once or soon. */
  breakOff(): void
}

/** Who has which places. When all are taken, the source with most of them loses its oldest to one that has fewer. */
export class Places<T extends Occupant> {
  readonly #limits: PlaceLimits
  /** Each source's, the oldest first. */
  readonly #bySource = new Map<string, Set<T>>()
  #taken = 0

  constructor(limits: PlaceLimits) {
    this.#limits = limits
  }

  get taken(): number {
    return this.#taken
  }

  of(source: string): readonly T[] {
    return [...(this.#bySource.get(source) ?? [])]
  }

  sources(): readonly string[] {
    return [...this.#bySource.keys()]
  }

  /** Whether there is a place for one more of a source; makes one where it can. */
  makeRoom(source: string): boolean {
    const mine = this.#bySource.get(source)?.size ?? 0
    if (mine >= this.#limits.perSource) return false
    if (this.#taken < this.#limits.all) return true
    const largest = this.#largest()
    const [oldest] = largest
    if (oldest === undefined || largest.size <= mine + 1) return false
    oldest.breakOff()
    return true
  }

  take(source: string, occupant: T): void {
    const mine = this.#bySource.get(source) ?? new Set()
    this.#bySource.set(source, mine.add(occupant))
    this.#taken += 1
  }

  leave(source: string, occupant: T): void {
    const mine = this.#bySource.get(source)
    if (!mine?.delete(occupant)) return
    this.#taken -= 1
    if (mine.size === 0) this.#bySource.delete(source)
  }

  #largest(): ReadonlySet<T> {
    let largest: ReadonlySet<T> = new Set()
    for (const each of this.#bySource.values()) if (each.size > largest.size) largest = each
    return largest
  }
}
