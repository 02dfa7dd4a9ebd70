import { isIPv4 } from 'node:net'
import { AppError } from '@wrenn/base'

/** An IPv4 network; `base` is the address as a number with the host bits cleared. */
export interface Cidr {
  readonly base: number
  readonly bits: number
}

/** The two usable addresses of a slot's /30. */
export interface SlotAddresses {
  /** The root namespace's end of the veth pair. */
  readonly host: string
  /** The slot namespace's end: where the host reaches the guest. */
  readonly guest: string
}

/** Each slot takes a /30; the first one of the range belongs to the DNS forwarder. */
const BLOCK = 4
const MINIMUM_BITS = 8
const MAXIMUM_BITS = 26

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

/** The addresses of all slots of one host. */
export class SlotRange {
  readonly cidr: Cidr
  readonly dns: string
  /** Slots are numbered from 1 to this. */
  readonly lastIndex: number

  /** @throws AppError `invalid_config` */
  constructor(range: string) {
    const cidr = parseCidr(range)
    if (!cidr || cidr.bits < MINIMUM_BITS || cidr.bits > MAXIMUM_BITS) {
      const rule = `must be an IPv4 network between /${MINIMUM_BITS} and /${MAXIMUM_BITS}, such as 10.201.0.0/16`
      throw new AppError('invalid_config', `WRENN_NETWORK_CIDR ${rule}, not "${range}".`)
    }
    this.cidr = cidr
    this.dns = formatAddress(cidr.base + 1)
    this.lastIndex = sizeOf(cidr.bits) / BLOCK - 1
  }

  /** Of the slot of this number, which is at least 1; not checked. */
  addresses(index: number): SlotAddresses {
    const block = this.cidr.base + index * BLOCK
    return { host: formatAddress(block + 1), guest: formatAddress(block + 2) }
  }
}
