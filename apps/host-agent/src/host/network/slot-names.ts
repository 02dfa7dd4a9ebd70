import type { Logger } from '@wrenn/base'
import type { AnswerWitness } from '../dns/index.js'
import { EgressFilter, type FilterProgram } from '../filter/index.js'
import { joinLearned, type Learned, type Refusal } from '../names/index.js'
import type { SlotRange } from './address.js'
import { NameGate } from './name-gate.js'
import { filterLink } from './own-links.js'
import { type EgressPolicy, type ResolvedPolicy, usesFilter } from './policy.js'
import { FILTER_MARK, TO_FILTER } from './rules.js'

interface SlotNamesOptions {
  readonly prefix: string
  readonly range: SlotRange
  /** Of the link to the filter's namespace. */
  readonly label: string
  readonly program: FilterProgram | undefined
  readonly logger: Logger
  /** Of slots' links, once it is known. */
  readonly mtu: () => number
}

/** What slots reach by name: connections through the filter, and questions to the resolver. */
export class SlotNames {
  readonly #prefix: string
  readonly #range: SlotRange
  readonly #gate = new NameGate()
  readonly #filter: EgressFilter

  constructor({ prefix, range, label, program, logger, mtu }: SlotNamesOptions) {
    this.#prefix = prefix
    this.#range = range
    const plan = {
      name: filterLink(prefix),
      address: range.filter,
      dnsAddress: range.dns,
      label,
      uid: program?.uid ?? 0,
    }
    this.#filter = new EgressFilter({ plan, program, logger, mtu })
  }

  /** Takes over slots of an earlier start. Those that the filter decides for ask no names until their policy is loaded again. */
  async adopt(indexes: readonly number[]): Promise<void> {
    for (const index of await this.#filter.adopt(indexes, (each) => this.#address(each))) {
      this.#gate.close(this.#address(index))
    }
  }

  /** Whether the resolver answers a slot, by its address, for a name in lower case. */
  mayAsk(client: string, name: string): boolean {
    return this.#gate.mayAsk(client, name)
  }

  /** To be called before the rules send anything here. Of a policy that needs no filter it hears only where it may have connections. */
  async apply(index: number, policy: EgressPolicy, resolved: ResolvedPolicy): Promise<void> {
    const address = this.#address(index)
    const takeBack = this.#gate.set(address, resolved)
    if (!usesFilter(resolved) && !this.#filter.has(index)) return
    const slot = { index, namespace: `${this.#prefix}-${index}`, address, mark: FILTER_MARK, link: TO_FILTER }
    try {
      await this.#filter.set(slot, policy)
    } catch (error) {
      takeBack()
      throw error
    }
  }

  /** Before the slot is removed. */
  async forget(index: number): Promise<void> {
    await this.#filter.forget(index)
    this.#gate.forget(this.#address(index))
  }

  /** The newest first. */
  async refused(index: number): Promise<readonly Refusal[]> {
    const asked = this.#gate.refused(this.#address(index))
    const all = [...asked, ...(await this.#filter.refused(index))]
    return all.sort((a, b) => b.lastAtMs - a.lastAtMs)
  }

  /** What a slot that learns has used; `direct`: without the filter. */
  async learned(index: number, direct: Learned): Promise<Learned> {
    return this.#gate.named(this.#address(index), joinLearned(await this.#filter.learned(index), direct))
  }

  /** For the resolver: whose answers are to be heard, and what they were. */
  get witness(): AnswerWitness {
    return this.#gate
  }

  /** Leaves the filter running, with all its connections. */
  async stop(): Promise<void> {
    await this.#filter.stop()
  }

  /** Ends the filter and removes all that it has on the host. */
  async remove(): Promise<void> {
    await this.#filter.remove()
  }

  #address(index: number): string {
    return this.#range.addresses(index).guest
  }
}
