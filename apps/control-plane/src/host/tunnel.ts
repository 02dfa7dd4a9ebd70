import { type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, isErrorCode, TUNNEL_PROTOCOL, type TunnelTarget, tunnelPath } from '@wrenn/protocol'
import { z } from 'zod'
import type { HostAgentTls } from '../config.js'
import { parseAddress, readTls } from './address.js'
import type { HostPlace } from './remote-host.js'

const MAX_REFUSAL_BYTES = 16 * 1024
const refusal = z.object({ message: z.string() })

/**
 * Opens a connection to a port of a capsule: bytes and ends, both ways. Whoever asked owns it; it breaks off when the guest ends, sleeps or is
 * rolled back.
 * @throws AppError `port_closed`, `capsule_not_found`, `invalid_state`, `guest_died`, `guest_unreachable`, `host_unavailable`, or the reason
 * of `signal`
 */
export type OpenTunnel = (target: TunnelTarget, signal: AbortSignal) => Promise<Socket>

/** Tunnels over the host agent at `place`, each a connection of its own. @throws AppError `invalid_config` */
export function createTunnels(place: HostPlace, tls?: HostAgentTls): OpenTunnel {
  const dial = dialer(place, tls)
  return (target, signal) => askHost(dial, tunnelPath(target), TUNNEL_PROTOCOL, signal)
}

/**
 * Has a host agent turn a connection into one of another protocol. Whoever asked owns it.
 * @throws AppError as the host agent refuses, `host_unavailable`, or the reason of `signal`
 */
export function askHost(dial: () => Socket, path: string, protocol: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const asked = request({
      path,
      headers: { host: 'host-agent', connection: 'Upgrade', upgrade: protocol },
      createConnection: dial,
      signal,
    })
    asked.once('error', (cause) => reject(signal.aborted ? signal.reason : hostAway(cause)))
    asked.once('response', (answer) => void refusalOf(answer).then(reject, (cause) => reject(hostAway(cause))))
    asked.once('upgrade', (_answer, socket: Socket, head) => {
      socket.on('error', () => {}) // whoever takes it hears `close`
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    asked.end()
  })
}

function dialer(place: HostPlace, tls: HostAgentTls | undefined): () => Socket {
  if (typeof place !== 'string') return () => place.connect(['http/1.1'])
  const { path, url } = parseAddress(place)
  if (path !== undefined) return () => connect({ path, allowHalfOpen: true })
  const { hostname, port } = url
  const host = hostname.replace(/^\[(.*)\]$/, '$1')
  if (url.protocol === 'http:')
    return () => connect({ host, port: Number(port || 80), allowHalfOpen: true, noDelay: true })
  const secure = readTls(tls)
  return () => {
    const socket = connect({ host, port: Number(port || 443), allowHalfOpen: true, noDelay: true })
    return connectTls({ socket, servername: host, ...secure })
  }
}

async function refusalOf(answer: IncomingMessage): Promise<AppError> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of answer) {
    length += chunk.length
    if (length > MAX_REFUSAL_BYTES) break
    chunks.push(chunk)
  }
  const code = answer.headers[ERROR_CODE_HEADER]
  if (typeof code !== 'string' || !isErrorCode(code)) return hostAway(new Error(`status ${answer.statusCode}`))
  return new AppError(code, refusal.parse(JSON.parse(Buffer.concat(chunks).toString())).message)
}

/** Nobody answers where the host agent should. */
export function hostAway(cause: unknown): AppError {
  return new AppError('host_unavailable', 'The host of the capsule does not answer.', { cause })
}
