/** Where a host agent listens, or is reached. */
export interface HostAddress {
  /** Without brackets. */
  readonly host: string
  readonly port: number
}

/** Its form; the port may still be none. */
export const hostAddressPattern =
  /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)):(\d{1,5})$/

/** Of `name:port`, `address:port` or `[IPv6]:port`; `undefined` where it is none, or the port is not from 1 to 65535. */
export function parseHostAddress(text: string): HostAddress | undefined {
  const [, ipv6, name, digits] = hostAddressPattern.exec(text) ?? []
  const [host, port] = [ipv6 ?? name, Number(digits)]
  return host !== undefined && port > 0 && port < 65_536 ? { host, port } : undefined
}
