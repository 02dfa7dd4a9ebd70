import { Resolver } from 'node:dns/promises'
import { isIP, type LookupFunction } from 'node:net'
import { AppError, errorText } from '@wrenn/base'
import type { AddressRule } from './address-rule.js'

const DNS_TIMEOUT_MS = 2_000
const DNS_TRIES = 2

/** All addresses of a name; none when it is not found. */
export type Resolve = (name: string) => Promise<readonly string[]>

/**
 * Keeps channels from reaching what only this machine can reach. A name is looked up once for each connection, what comes out is judged, and the connection is
 * made to one of those very addresses: there is no second look-up that could give another. What nobody encrypts goes to networks of the
 * operator's list only.
 */
export class Guard {
  readonly #rule: AddressRule
  readonly #resolve: Resolve

  constructor(rule: AddressRule, resolve: Resolve = resolveName) {
    this.#rule = rule
    this.#resolve = resolve
  }

  /**
   * Whether a URL may be kept at all, as far as can be said without a look-up.
   * @throws AppError `target_refused`
   */
  check({ protocol, hostname }: URL): void {
    const isPlain = protocol !== 'https:'
    const literal = hostname.replace(/^\[|\]$/g, '')
    if (isIP(literal) !== 0) this.#need(literal, isPlain)
    else if (isPlain && !this.#rule.allowsAny) throw refused('It must be an https: URL.')
  }

  /** In a network of the operator's list, by its number. */
  isAllowed({ hostname }: URL): boolean {
    return this.#rule.isAllowed(hostname)
  }

  /** For one connection to a name; Node.js asks it for no address that is written as one. */
  lookup(isPlain: boolean): LookupFunction {
    return (name, options, done) => {
      this.#addresses(name, isPlain).then(
        (found) => {
          const [first] = found
          if (options.all === true) done(null, found)
          else done(null, first?.address ?? '', first?.family)
        },
        (error: unknown) => done(error instanceof Error ? error : new Error(errorText(error)), [], 0),
      )
    }
  }

  async #addresses(name: string, isPlain: boolean): Promise<{ address: string; family: number }[]> {
    const all = await this.#resolve(name)
    const usable = all.filter((address) => this.#isGood(address, isPlain))
    // Nobody finds out by channels which names there are inside: those that are not found are answered alike.
    if (usable.length === 0)
      throw refused(`${name} has no address that channels may send to${isPlain ? ' without TLS' : ''}.`)
    return usable.map((address) => ({ address, family: isIP(address) }))
  }

  #need(address: string, isPlain: boolean): void {
    if (!this.#isGood(address, isPlain))
      throw refused(`Channels may not send to ${address}${isPlain ? ' without TLS' : ''}.`)
  }

  #isGood(address: string, isPlain: boolean): boolean {
    return this.#rule.isAllowed(address) || (!isPlain && this.#rule.isPublic(address))
  }
}

function refused(message: string): AppError {
  return new AppError('target_refused', message)
}

/**
 * Asks name servers alone. What the system would do besides runs on a few threads that files need too, and a name whose server
 * is silent would hold one of them for long.
 */
async function resolveName(name: string): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: DNS_TIMEOUT_MS, tries: DNS_TRIES })
  const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
  return answers.flatMap((each) => (each.status === 'fulfilled' ? each.value : []))
}
