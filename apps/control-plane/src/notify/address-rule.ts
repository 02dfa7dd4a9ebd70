import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import ipaddr from 'ipaddr.js'

type Network = ReturnType<typeof ipaddr.parseCIDR>

/** Networks that the operator lets channels send to, beside public addresses. */
export type Allowed = readonly Network[]

/** Public by its number, and a platform's own all the same: Azure's, which answers with what a machine is made of. */
const metadata: ReadonlySet<string> = new Set(['168.63.129.16'])
/** All that is given out for use between anybody (RFC 4291 §2.4 and the registry of IANA); the rest has meanings of its own. */
const GLOBAL_IPV6 = ipaddr.parseCIDR('2000::/3')

/** Reads addresses and networks, separated by commas. `undefined` when one of them is neither. */
export function parseNetworks(text: string): Allowed | undefined {
  const parts = text.split(',').map((part) => part.trim())
  const networks = parts.filter((part) => part !== '').map(parseNetwork)
  const known = networks.filter((network) => network !== undefined)
  return known.length === networks.length ? known : undefined
}

function parseNetwork(text: string): Network | undefined {
  if (ipaddr.isValidCIDR(text)) return ipaddr.parseCIDR(text)
  if (isIP(text) === 0) return undefined
  const address = ipaddr.parse(text)
  return [address, address.kind() === 'ipv4' ? 32 : 128]
}

/** Says which addresses a channel may be connected to. */
export class AddressRule {
  readonly #allowed: Allowed
  readonly #own: () => readonly string[]

  /** @param own addresses of this machine, asked for each time */
  constructor(allowed: Allowed, own: () => readonly string[] = ownAddresses) {
    this.#allowed = allowed
    this.#own = own
  }

  /** Whether anything but public addresses may be reached. */
  get allowsAny(): boolean {
    return this.#allowed.length > 0
  }

  /** In a network of the operator's list. An IPv4 address in an IPv6 one is what it is. */
  isAllowed(text: string): boolean {
    const address = parse(text)
    return (
      address !== undefined &&
      this.#allowed.some(([base, bits]) => address.kind() === base.kind() && address.match(base, bits))
    )
  }

  /** Public: not private, loopback, link-local, multicast, reserved, of a translator or tunnel to any of these, or this machine's own. */
  isPublic(text: string): boolean {
    const address = parse(text)
    if (address === undefined || address.range() !== 'unicast') return false
    if (address.kind() === 'ipv6' && !address.match(GLOBAL_IPV6)) return false
    const plain = address.toString()
    return !metadata.has(plain) && !this.#own().some((own) => parse(own)?.toString() === plain)
  }
}

/**
 * An IPv4 address that is mapped into IPv6 comes out as itself. The URL writes IPv6 in hexadecimal first: `::8.8.8.8`, which is another address, would be read
 * as mapped too.
 */
function parse(text: string): ReturnType<typeof ipaddr.process> | undefined {
  const bare = text.replace(/^\[|\]$/g, '').replace(/%.*$/, '')
  if (isIP(bare) === 0) return undefined
  return ipaddr.process(isIP(bare) === 6 ? new URL(`http://[${bare}]`).hostname.slice(1, -1) : bare)
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces()).flatMap((all = []) => all.map(({ address }) => address))
}
