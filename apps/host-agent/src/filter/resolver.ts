import { Resolver } from 'node:dns/promises'
import { parseAddress } from '@wrenn/base'

const TIMEOUT_MS = 1_500
const TRIES = 3
/** An answer is the name's for as long as its server says, and no longer than this. */
const MAXIMUM_AGE_MS = 60_000
const MAXIMUM_ANSWERS = 4096
/** Look-ups of one source that have no answer yet. */
const MAXIMUM_PER_SOURCE = 64

interface Answer {
  readonly addresses: readonly number[]
  readonly untilMs: number
}

/** Asks a server for the IPv4 addresses of a name, with how long they hold. */
export type AskAddresses = (name: string) => Promise<readonly { readonly address: string; readonly ttl: number }[]>

/** A source asks for too many names at once. */
export class TooManyLookups extends Error {}

/** Finds names' addresses through the platform's resolver alone: what a guest's own resolver says is not believed. */
export class NameResolver {
  readonly #ask: AskAddresses
  readonly #now: () => number
  /** Oldest use first. */
  readonly #answers = new Map<string, Answer>()
  readonly #running = new Map<string, Promise<readonly number[]>>()
  readonly #bySource = new Map<string, number>()

  constructor(ask: AskAddresses, now: () => number = () => performance.now()) {
    this.#ask = ask
    this.#now = now
  }

  /** None for a name that has none, or for which no server answers. @throws TooManyLookups */
  async addresses(name: string, source: string): Promise<readonly number[]> {
    const known = this.#answers.get(name)
    if (known !== undefined && known.untilMs > this.#now()) return known.addresses
    const mine = this.#bySource.get(source) ?? 0
    if (mine >= MAXIMUM_PER_SOURCE) throw new TooManyLookups(`more than ${MAXIMUM_PER_SOURCE} names at once`)
    this.#bySource.set(source, mine + 1)
    try {
      return await this.#shared(name)
    } finally {
      this.#release(source)
    }
  }

  #release(source: string): void {
    const left = (this.#bySource.get(source) ?? 1) - 1
    if (left === 0) this.#bySource.delete(source)
    else this.#bySource.set(source, left)
  }

  async #shared(name: string): Promise<readonly number[]> {
    const running = this.#running.get(name) ?? this.#lookUp(name).finally(() => this.#running.delete(name))
    this.#running.set(name, running)
    return await running
  }

  async #lookUp(name: string): Promise<readonly number[]> {
    // No answer is remembered as none: the next connection asks again.
    const found = await this.#ask(name).catch(() => [])
    const addresses = found.flatMap(({ address }) => parseAddress(address) ?? [])
    if (addresses.length > 0) this.#remember(name, addresses, Math.min(...found.map(({ ttl }) => ttl * 1000)))
    return addresses
  }

  #remember(name: string, addresses: readonly number[], ageMs: number): void {
    this.#answers.delete(name)
    this.#answers.set(name, { addresses, untilMs: this.#now() + Math.min(ageMs, MAXIMUM_AGE_MS) })
    const [oldest] = this.#answers.keys()
    if (this.#answers.size > MAXIMUM_ANSWERS && oldest !== undefined) this.#answers.delete(oldest)
  }
}

/** Asks the server at `address`, which may carry a port. */
export function askServer(address: string): AskAddresses {
  const resolver = new Resolver({ timeout: TIMEOUT_MS, tries: TRIES })
  resolver.setServers([address])
  return async (name) => await resolver.resolve4(name, { ttl: true })
}
