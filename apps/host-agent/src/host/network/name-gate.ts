import { parseHostName } from '@wrenn/base'
import { NamesPolicy, type Refusal, type RefusalReason, Refusals } from '../names/index.js'
import { hasNames, type ResolvedPolicy } from './policy.js'

const DNS_PORT = 53

/** Which names the platform's resolver answers to whom; clients without names in their policy ask for any. */
export class NameGate {
  /** `undefined`: nothing is answered. */
  readonly #policies = new Map<string, NamesPolicy | undefined>()
  readonly #refusals = new Refusals()

  /** @returns how to take it back */
  set(client: string, policy: ResolvedPolicy): () => void {
    const [hadOne, before] = [this.#policies.has(client), this.#policies.get(client)]
    if (hasNames(policy)) this.#policies.set(client, new NamesPolicy(policy))
    else this.#policies.delete(client)
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

  /** The newest first. */
  refused(client: string): readonly Refusal[] {
    return this.#refusals.list(client)
  }
}

function why(policy: NamesPolicy, name: string): { readonly reason: RefusalReason; readonly rule?: string } {
  const verdict = policy.judge(name)
  return verdict.verdict === 'denied' ? { reason: 'denied', rule: verdict.rule } : { reason: 'not_allowed' }
}
