import { parseHostName } from '@wrenn/base'
import { type Learned, NamesPolicy, type Refusal, type RefusalReason, Refusals } from '../names/index.js'
import { hasNames, type ResolvedPolicy } from './policy.js'

const DNS_PORT = 53

/** Addresses of names that a client which learns was told, the newest. */
const MAXIMUM_ADDRESSES = 2048

/** Which names the platform's resolver answers to whom; clients without names in their policy ask for any. */
export class NameGate {
  /** `undefined`: nothing is answered. */
  readonly #policies = new Map<string, NamesPolicy | undefined>()
  readonly #refusals = new Refusals()
  /** Of clients that learn: address → the name that it was an answer for last. */
  readonly #answered = new Map<string, Map<string, string>>()

  /** @returns how to take it back */
  set(client: string, policy: ResolvedPolicy): () => void {
    const [hadOne, before] = [this.#policies.has(client), this.#policies.get(client)]
    if (hasNames(policy)) this.#policies.set(client, new NamesPolicy(policy))
    else this.#policies.delete(client)
    if (!policy.learn) this.#answered.delete(client)
    else if (!this.#answered.has(client)) this.#answered.set(client, new Map())
    return () => {
      if (hadOne) this.#policies.set(client, before)
      else this.#policies.delete(client)
    }
  }

  /** Until its policy is known. */
  close(client: string): void {
    this.#policies.set(client, undefined)
  }

  forget(client: string): void {
    this.#policies.delete(client)
    this.#refusals.forget(client)
    this.#answered.delete(client)
  }

  /** @param name as it was asked for, in lower case */
  mayAsk(client: string, name: string): boolean {
    if (!this.#policies.has(client)) return true
    const policy = this.#policies.get(client)
    const host = parseHostName(name)
    // What is no host's name, such as a single label, is in no list.
    if (policy?.resolves(host ?? '') === true) return true
    if (host !== undefined && policy !== undefined) {
      this.#refusals.note(client, { name: host, port: DNS_PORT, ...why(policy, host) })
    }
    return false
  }

  /** Whether {@link hear} is of use for a client. */
  wants(client: string): boolean {
    return this.#answered.has(client)
  }

  /** What a client was answered. @param asked in lower case */
  hear(client: string, asked: string, addresses: readonly string[]): void {
    const answered = this.#answered.get(client)
    const name = parseHostName(asked)
    if (answered === undefined || name === undefined) return
    for (const address of addresses) {
      answered.delete(address)
      answered.set(address, name)
      const [oldest] = answered.keys()
      if (answered.size > MAXIMUM_ADDRESSES && oldest !== undefined) answered.delete(oldest)
    }
  }

  /** Gives names to places that said none, where the client has asked for one that is there. */
  named(client: string, { destinations, isComplete }: Learned): Learned {
    const answered = this.#answered.get(client)
    const withName = destinations.map((each) => {
      const name = each.name ?? answered?.get(each.address)
      return name === undefined || each.name !== undefined ? each : ({ ...each, name, namedBy: 'lookup' } as const)
    })
    return { destinations: withName, isComplete }
  }

  /** The newest first. */
  refused(client: string): readonly Refusal[] {
    return this.#refusals.list(client)
  }
}

function why(policy: NamesPolicy, name: string): { readonly reason: RefusalReason; readonly rule?: string } {
  const verdict = policy.judge(name)
  return verdict.verdict === 'denied' ? { reason: 'denied', rule: verdict.rule } : { reason: 'not_allowed' }
}
