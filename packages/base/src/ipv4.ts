import { isIPv4 } from 'node:net'

/** An IPv4 network; `base` is the address as a number with the host bits cleared. */
export interface Cidr {
  readonly base: number
  readonly bits: number
}

/** An IPv4 address as a number (first byte highest), so that networks are ranges; `undefined` for anything else. */
export function parseAddress(text: string): number | undefined {
  if (!isIPv4(text)) return undefined
  return text.split('.').reduce((number, part) => number * 256 + Number(part), 0)
}

/** The dotted form of such a number. */
export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')
}

/** Reads `a.b.c.d/n` or a single address; host bits may be set and are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^([\d.]+)(?:\/(\d{1,2}))?$/.exec(text)
  const address = parseAddress(match?.[1] ?? '')
  const bits = match?.[2] === undefined ? 32 : Number(match[2])
  if (address === undefined || bits > 32) return undefined
  return { base: address - (address % sizeOf(bits)), bits }
}

/** As nftables takes it: a single address has no `/32`. */
export function formatCidr({ base, bits }: Cidr): string {
  return bits === 32 ? formatAddress(base) : `${formatAddress(base)}/${bits}`
}

/** Whether some address is in both. */
export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.base < b.base + sizeOf(b.bits) && b.base < a.base + sizeOf(a.bits)
}

/** Whether `inner` lies wholly in `outer`. */
export function contains(outer: Cidr, inner: Cidr): boolean {
  return inner.bits >= outer.bits && overlaps(outer, inner)
}

function sizeOf(bits: number): number {
  return 2 ** (32 - bits)
}

/**
 * Never reachable from a capsule, whatever its policy says: "this" network, loopback, link-local with the cloud's metadata service,
 * multicast, reserved and broadcast. https://www.iana.org/assignments/iana-ipv4-special-registry
 */
export const neverRanges = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'] as const

/** Which of {@link neverRanges} a network lies in, if any. */
export function neverRangeOf(cidr: Cidr): string | undefined {
  return neverRanges.find((range) => {
    const never = parseCidr(range)
    return never !== undefined && contains(never, cidr)
  })
}
