import type { Credentials } from '@wrenn/certificates'
import type { EdgeRule } from '../../host/network/policy.js'

/** What is set in requests to a host, and who speaks for it toward the guest. */
export interface EdgeMatch {
  readonly headers: Readonly<Record<string, string>>
  readonly authority: Credentials
}

/** The rules of one source. An exact name comes before a wildcard, a longer one before a shorter; they are not merged. */
export class EdgeRules {
  readonly #authority: Credentials
  readonly #byHost: ReadonlyMap<string, EdgeRule>

  constructor(rules: readonly EdgeRule[], authority: Credentials) {
    this.#authority = authority
    this.#byHost = new Map(rules.map((rule) => [rule.host, rule]))
  }

  isOf(authority: Credentials | undefined): boolean {
    return authority?.cert === this.#authority.cert
  }

  /** @param name as `parseHostName` gives it */
  find(name: string): EdgeMatch | undefined {
    const labels = name.split('.')
    const wildcards = labels.slice(1).map((_, index) => `*.${labels.slice(index + 1).join('.')}`)
    for (const host of [name, ...wildcards]) {
      const rule = this.#byHost.get(host)
      if (rule !== undefined) return { headers: rule.headers, authority: this.#authority }
    }
    return undefined
  }
}
