/** TCP port of the guest agent, the same that existing clients of the guest's protocol use. A tunnel to it is a line for clients. */
export const GUEST_AGENT_PORT = 49983
/** What a connection to a host agent asks to become (`Upgrade`) in order to be a tunnel: bytes and ends, both ways, nothing else. */
export const TUNNEL_PROTOCOL = 'wrenn-tunnel'

/**
 * What a connection to a host agent on the same machine asks to become (`Upgrade`) for a lease on a running guest: one line with the address at which
 * its ports are reached straight, then the bytes that come are sent back for as long as the guest is the same one. Each is use of the capsule.
 */
export const LEASE_PROTOCOL = 'wrenn-guest-lease'

/**
 * A connection to a guest agent that asks for this path, with the host's secret, to become one of `CLIENT_LINE_PROTOCOL` (`Upgrade`) is from
 * then on HTTP/1.1 for clients that were let in: what comes over it needs no proof and reaches the routes for clients alone.
 */
export const CLIENT_LINE_PATH = '/client-line'
export const CLIENT_LINE_PROTOCOL = 'wrenn-clients'

/** A TCP port in a capsule. */
export interface TunnelTarget {
  readonly capsuleId: string
  readonly port: number
}

/** The path under which a host agent is asked for a tunnel. */
export function tunnelPath({ capsuleId, port }: TunnelTarget): string {
  return `/tunnel/${capsuleId}/${port}`
}

/** The inverse of {@link tunnelPath}; `undefined` for every other spelling. */
export function parseTunnelPath(path: string): TunnelTarget | undefined {
  const [, capsuleId, digits] = /^\/tunnel\/(cl-[0-9a-z]+)\/([1-9]\d{0,4})$/.exec(path) ?? []
  const port = Number(digits)
  return capsuleId === undefined || port > 65_535 ? undefined : { capsuleId, port }
}

/** The path under which a host agent is asked for a lease on a capsule's guest. */
export function leasePath(capsuleId: string): string {
  return `/lease/${capsuleId}`
}

/** The inverse of {@link leasePath}; `undefined` for every other spelling. */
export function parseLeasePath(path: string): string | undefined {
  return /^\/lease\/(cl-[0-9a-z]+)$/.exec(path)?.[1]
}
