import type { Transport } from '@connectrpc/connect'
import type { Tracer } from '@wrenn/base'
import type { HostAgentTls } from '../config.js'
import { parseAddress } from './address.js'
import { GuestLeases } from './guest-leases.js'
import { Host } from './host.js'
import type { HostPlace } from './remote-host.js'
import { createHostClient } from './transport.js'
import { createTunnels, type OpenTunnel } from './tunnel.js'

/** A host, and what calls to it go over. */
export interface HostLink {
  readonly host: Host
  readonly transport: Transport
  readonly openTunnel: OpenTunnel
  close(): void
}

interface LinkOptions {
  readonly tls?: HostAgentTls | undefined
  readonly tracer?: Tracer | undefined
  /** As which it has joined. @default it is the only one, and has not */
  readonly joinedId?: string
}

/** Its connections open at the first call. @throws AppError `invalid_config` */
export function linkHost(place: HostPlace, { tls, tracer, joinedId }: LinkOptions = {}): HostLink {
  const { client, transport, close } = createHostClient(place, tls, tracer)
  const tunnels = createTunnels(place, tls)
  // Its guests are reached from its own machine alone.
  const socketPath = typeof place === 'string' ? parseAddress(place).path : undefined
  const leases = socketPath === undefined ? undefined : new GuestLeases(socketPath, tunnels)
  return {
    host: new Host(client, place, joinedId),
    transport,
    openTunnel: leases?.open ?? tunnels,
    close: () => {
      leases?.close()
      close()
    },
  }
}
