import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { AppError, type Cidr, contains, isErrno, neverRanges, parseAddress, parseCidr } from '@wrenn/base'
import { formatImageReference, type ImageReference } from '@wrenn/protocol'
import { privateRanges } from '../../network/index.js'

/** Where connections may go beside public addresses. */
export interface AllowedNetwork {
  readonly network: Cidr
  /** Absent: every port. */
  readonly port?: number
}

/** What an operator says about registries. */
export interface RegistrySettings {
  /** `host[:port]` or `*.domain` each, a host alone at every port; no entry: every registry on a public address. `none`: no registry. */
  readonly registries: readonly string[] | 'none'
  /** Where registries, and what they send one on to, may be beside public addresses. */
  readonly allowed: readonly AllowedNetwork[]
  /** `host[:port]` of registries that are spoken to without TLS. */
  readonly plain: readonly string[]
}

/** Where a connection of a fetch may go: these very addresses. */
export type Resolve = (host: string) => Promise<readonly string[]>

const closedRanges = [...neverRanges, ...privateRanges].map(parseCidr).filter((cidr) => cidr !== undefined)
/** Public by its number, and a platform's own all the same: Azure's, which answers with what a machine is made of. */
const METADATA = '168.63.129.16'

/**
 * Says where images may be fetched from. A registry is chosen by a user and sends one on as it likes, to its token service and its stores, so
 * that names say little: it is addresses that are judged, those that a connection is then made to. IPv4 alone, as for capsules.
 */
export class RegistryRules {
  readonly #settings: RegistrySettings
  readonly #resolve: Resolve
  readonly #own: () => readonly string[]

  constructor(settings: RegistrySettings, resolve: Resolve = resolveName, own: () => readonly string[] = ownAddresses) {
    this.#settings = settings
    this.#resolve = resolve
    this.#own = own
  }

  /** @throws AppError `registry_refused` when the operator's list does not have the image's registry */
  need(reference: ImageReference): void {
    const { registries } = this.#settings
    const isOpen =
      registries !== 'none' && (registries.length === 0 || registries.some((rule) => fits(rule, reference.registry)))
    if (isOpen) return
    throw refused(
      `${formatImageReference(reference)} is of ${reference.registry}, which this platform fetches no images from.`,
    )
  }

  /** Whether nobody encrypts what is said with it. */
  isPlain(authority: string): boolean {
    return this.#settings.plain.some((rule) => fits(rule, authority))
  }

  /**
   * An address of the host that may be connected to at that port. A name that there is not is answered as one that leads inside: no answer
   * tells which names an inner network has.
   * @throws AppError `registry_refused`; what the look-up throws when it cannot say
   */
  async address(host: string, port: number): Promise<string> {
    const all = isIP(host) === 0 ? await this.#addressesOf(host) : [host]
    const usable = all.find((address) => this.#isOpen(address, port))
    if (usable === undefined) throw refused(`${host} has no address that this platform fetches images from.`)
    return usable
  }

  async #addressesOf(host: string): Promise<readonly string[]> {
    try {
      return await this.#resolve(host)
    } catch (error) {
      if (isErrno(error, 'ENOTFOUND', 'ENODATA')) return []
      throw error
    }
  }

  #isOpen(text: string, port: number): boolean {
    const base = parseAddress(text)
    if (base === undefined) return false
    const isIn = (network: Cidr): boolean => contains(network, { base, bits: 32 })
    const { allowed } = this.#settings
    if (allowed.some((one) => isIn(one.network) && (one.port === undefined || one.port === port))) return true
    return !closedRanges.some(isIn) && text !== METADATA && !this.#own().includes(text)
  }
}

function fits(rule: string, registry: string): boolean {
  const host = registry.replace(/:\d+$/, '')
  if (rule.startsWith('*.')) return host.endsWith(rule.slice(1))
  return rule === registry || rule === host
}

function refused(message: string): AppError {
  return new AppError('registry_refused', message)
}

async function resolveName(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true, family: 4 })).map(({ address }) => address)
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((all = []) => all.map(({ address }) => address))
}
