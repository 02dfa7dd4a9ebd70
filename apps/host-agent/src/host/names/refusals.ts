/** Why an attempt was refused. */
export type RefusalReason =
  /** The name is in `deny`. */
  | 'denied'
  /** Neither list has the name, and the address is not allowed. */
  | 'not_allowed'
  /** The connection does not say which name it is for. */
  | 'no_name'
  /** The name has no address that may be reached. */
  | 'no_address'
  /** Too many connections or questions at once. */
  | 'too_many'

/** Attempts of one capsule at one target. */
export interface Refusal {
  readonly name?: string | undefined
  readonly address?: string | undefined
  readonly port: number
  readonly reason: RefusalReason
  /** The entry of the policy that refused. */
  readonly rule?: string | undefined
  readonly count: number
  readonly lastAtMs: number
}

interface RefusalLimits {
  readonly perSource: number
  readonly all: number
}

const LIMITS: RefusalLimits = { perSource: 256, all: 32_768 }

/** Attempts that were refused, by source: the newest so many of each, and of all together. */
export class Refusals {
  readonly #limits: RefusalLimits
  /** Each source's, the newest last. */
  readonly #bySource = new Map<string, Map<string, Refusal>>()
  #count = 0

  constructor(limits: RefusalLimits = LIMITS) {
    this.#limits = limits
  }

  note(source: string, attempt: Omit<Refusal, 'count' | 'lastAtMs'>, nowMs = Date.now()): void {
    const { name, address, port, reason, rule } = attempt
    // Names alone where there is one: its addresses change.
    const key = JSON.stringify([name ?? address, port, reason, rule])
    const mine = this.#bySource.get(source) ?? new Map<string, Refusal>()
    const count = (mine.get(key)?.count ?? 0) + 1
    if (count > 1) this.#remove(source, mine, key)
    else if (mine.size >= this.#limits.perSource) this.#removeOldest(source, mine)
    else if (this.#count >= this.#limits.all) this.#removeOldest(...this.#largest(source, mine))
    this.#bySource.set(source, mine)
    mine.set(key, { ...attempt, count, lastAtMs: nowMs })
    this.#count += 1
  }

  /** The newest first. */
  list(source: string): readonly Refusal[] {
    return [...(this.#bySource.get(source)?.values() ?? [])].reverse()
  }

  forget(source: string): void {
    this.#count -= this.#bySource.get(source)?.size ?? 0
    this.#bySource.delete(source)
  }

  #remove(source: string, mine: Map<string, Refusal>, key: string): void {
    if (!mine.delete(key)) return
    this.#count -= 1
    if (mine.size === 0) this.#bySource.delete(source)
  }

  #removeOldest(source: string, mine: Map<string, Refusal>): void {
    const [oldest] = mine.keys()
    if (oldest !== undefined) this.#remove(source, mine, oldest)
  }

  #largest(source: string, mine: Map<string, Refusal>): [string, Map<string, Refusal>] {
    let largest: [string, Map<string, Refusal>] = [source, mine]
    for (const each of this.#bySource) if (each[1].size > largest[1].size) largest = each
    return largest
  }
}
