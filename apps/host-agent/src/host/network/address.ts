import { AppError, type Cidr, formatAddress, parseCidr } from '@wrenn/base'

/** The two usable addresses of a slot's /30. */
export interface SlotAddresses {
  /** The root namespace's end of the veth pair. */
  readonly host: string
  /** The slot namespace's end: where the host reaches the guest. */
  readonly guest: string
}

/** Each slot takes a /30; the first one of the range belongs to the DNS forwarder and the filter. */
const BLOCK = 4
const MINIMUM_BITS = 8
const MAXIMUM_BITS = 26

/** The addresses of all slots of one host. */
export class SlotRange {
  readonly cidr: Cidr
  readonly dns: string
  /** Where the filter's own connections come from. */
  readonly filter: string
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
    this.filter = formatAddress(cidr.base + 2)
    this.lastIndex = 2 ** (32 - cidr.bits) / BLOCK - 1
  }

  /** Of the slot of this number, which is at least 1; not checked. */
  addresses(index: number): SlotAddresses {
    const block = this.cidr.base + index * BLOCK
    return { host: formatAddress(block + 1), guest: formatAddress(block + 2) }
  }
}
