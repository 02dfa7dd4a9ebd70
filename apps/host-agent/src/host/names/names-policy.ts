import { DomainSet } from '@wrenn/base'
import { find } from '../network/intervals.js'
import { isPublic, type ResolvedPolicy } from '../network/policy.js'

/** What a policy says of a name by itself. `open`: neither list has it, so the address decides. */
export type NameVerdict =
  | { readonly verdict: 'allowed' | 'open' }
  /** `rule`: the entry of `deny` that has it. */
  | { readonly verdict: 'denied'; readonly rule: string }

/** A policy as it decides on names; names are as `parseHostName` gives them. */
export class NamesPolicy {
  readonly #policy: ResolvedPolicy
  readonly #allow: DomainSet
  readonly #deny: DomainSet

  constructor(policy: ResolvedPolicy) {
    this.#policy = policy
    this.#allow = new DomainSet(policy.allowNames)
    this.#deny = new DomainSet(policy.denyNames)
  }

  judge(name: string): NameVerdict {
    if (this.#allow.find(name) !== undefined) return { verdict: 'allowed' }
    const rule = this.#deny.find(name)
    return rule === undefined ? { verdict: 'open' } : { verdict: 'denied', rule }
  }

  /** Whether a connection for this name may go to an address. No name opens a private range. */
  permits(name: string, address: number): boolean {
    const { verdict } = this.judge(name)
    if (verdict === 'denied' || !isPublic(address)) return false
    return verdict === 'allowed' || find(this.#policy.permitted, address) !== undefined
  }

  /** Whether a connection to an address passes without a name, from the filter's place: that reaches nothing private. */
  permitsUnnamed(address: number): boolean {
    return isPublic(address) && find(this.#policy.permittedByAddress, address) !== undefined
  }

  /** Whether connections come here that no name decides. */
  get watches(): boolean {
    return this.#policy.watched
  }

  /** Whether what it lets through is noted. */
  get learns(): boolean {
    return this.#policy.learn
  }

  /** Whether the platform's resolver answers for it: not for what is of no use, since questions are a way out. */
  resolves(name: string): boolean {
    const { verdict } = this.judge(name)
    if (verdict !== 'open') return verdict === 'allowed'
    return this.#policy.internet || this.#allow.isEmpty
  }
}
