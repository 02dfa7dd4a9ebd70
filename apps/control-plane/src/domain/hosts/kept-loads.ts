import type { Db } from '../../store/database.js'
import { type HostLoad, listHostLoads } from '../../store/placement.js'

/** A look takes up to this part of a CPU of the database, however much there is to look at. */
const PART_OF_TIME = 1 / 20
const LEAST_AGE_MS = 1_000
/** Nothing that is older is chosen by. */
const MOST_AGE_MS = 60_000
/** What is older is looked at anew before anybody is refused because of it. */
const REFUSED_BY_AGE_MS = 1_000

/**
 * What is promised of each host, as it was a moment ago and as this process has promised since. Looking at a million capsules takes the database longer than
 * a choice may take: who chooses by this asks for the one host again that was chosen.
 */
export class KeptLoads {
  readonly #db: Db
  #loads: Map<string, HostLoad> | undefined
  #lookedAt = Number.NEGATIVE_INFINITY
  #tookMs = 0
  #looking: Promise<void> | undefined
  #isRenewing = false

  constructor(db: Db) {
    this.#db = db
  }

  /** How many hosts there were at the last look; 0 before the first. */
  get count(): number {
    return this.#loads?.size ?? 0
  }

  /**
   * The oldest hosts first.
   * @param tx of who chooses: another connection may not be free before that one is
   */
  async all(tx: Db): Promise<Iterable<HostLoad>> {
    const age = performance.now() - this.#lookedAt
    if (this.#loads === undefined || age > MOST_AGE_MS) await this.#look(tx)
    else if (age > Math.max(LEAST_AGE_MS, this.#tookMs / PART_OF_TIME)) this.#renew()
    return (this.#loads ?? new Map<string, HostLoad>()).values()
  }

  /** Looks again unless that was just done. @returns whether it did */
  async isRenewed(tx: Db): Promise<boolean> {
    if (performance.now() - this.#lookedAt < REFUSED_BY_AGE_MS) return false
    await this.#look(tx)
    return true
  }

  /** What was just found out of a host, or promised by it; `undefined`: it is not there. */
  set(id: string, load: HostLoad | undefined): void {
    if (load === undefined) this.#loads?.delete(id)
    else this.#loads?.set(id, load)
  }

  /** Of all who look at once in a transaction, one does. */
  async #look(db: Db): Promise<void> {
    // Who has no transaction may get a connection only once those who have one are done: they must not wait for it.
    if (db === this.#db) return await this.#lookNow(db)
    this.#looking ??= this.#lookNow(db).finally(() => {
      this.#looking = undefined
    })
    await this.#looking
  }

  /** Beside those who choose: each of them holds a connection, and none of them waits for this one. */
  #renew(): void {
    if (this.#isRenewing) return
    this.#isRenewing = true
    this.#lookNow(this.#db)
      .catch(() => {}) // whoever chooses after a minute without one finds it out
      .finally(() => {
        this.#isRenewing = false
      })
  }

  async #lookNow(db: Db): Promise<void> {
    const startedAt = performance.now()
    const loads = await listHostLoads(db)
    this.#loads = new Map(loads.map((load) => [load.id, load]))
    this.#lookedAt = performance.now()
    this.#tookMs = this.#lookedAt - startedAt
  }
}
