import { PORT_TOKEN_QUERY, type Ports } from '@wrenn/protocol'
import { createError } from './errors.js'
import type { PortAccess } from './types.js'

/** How the ports of a capsule are reached. */
export interface PortsInfo {
  readonly access: PortAccess
  /** The URL of a port is `http://{port}-{id}.{domain}/`. */
  readonly domain: string
  /** Of a private capsule: goes into the header `x-wrenn-port-token`. */
  readonly token: string | undefined
}

/** Wire to SDK. */
export function portsInfo({ access, domain, token }: Ports): PortsInfo {
  return { access, domain, token }
}

/** @throws WrennError `invalid_request` */
export function portHost(id: string, port: number, { domain }: PortsInfo): string {
  if (Number.isInteger(port) && port > 0 && port < 65_536) return `${port}-${id}.${domain}`
  throw createError('The port must be a number from 1 to 65535.', { code: 'invalid_request' })
}

/** As secure as the API is reached. */
export function portUrl(apiUrl: string, id: string, port: number, ports: PortsInfo): string {
  const scheme = apiUrl.startsWith('https:') ? 'https' : 'http'
  const query = ports.token === undefined ? '' : `?${PORT_TOKEN_QUERY}=${ports.token}`
  return `${scheme}://${portHost(id, port, ports)}/${query}`
}
