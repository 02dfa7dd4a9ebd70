import { readFileSync } from 'node:fs'
import type { ClientHttp2Stream, OutgoingHttpHeaders, SecureClientSessionOptions } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { AppError } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import type { HostAgentTls } from '../config.js'

const STREAM_WINDOW_BYTES = 1024 * 1024
/** Far above any number of stalled streams, so that a slow reader never holds up the other calls on the connection. */
const CONNECTION_WINDOW_BYTES = 1024 * 1024 * 1024
const PING_INTERVAL_MS = 20_000
const IDLE_CONNECTION_MS = 10 * 60_000

export type HostClient = ReturnType<typeof createHostClient>['client']

class WideSessionManager extends Http2SessionManager {
  readonly #widened = new WeakSet<object>()

  override async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Parameters<Http2SessionManager['request']>[3],
  ): Promise<ClientHttp2Stream> {
    const stream = await super.request(method, path, headers, options)
    const { session } = stream
    if (session !== undefined && !this.#widened.has(session)) {
      this.#widened.add(session)
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES)
    }
    return stream
  }
}

/**
 * A client of one host agent over HTTP/2. `address` is `unix:/path`, `http://host:port`, or `https://host:port` with mutual
 * TLS. The connection opens at the first call and again after it broke.
 * @throws AppError `invalid_config`
 */
export function createHostClient(address: string, tls?: HostAgentTls) {
  const { authority, options } = parseAddress(address, tls)
  const sessions = new WideSessionManager(
    authority,
    { pingIntervalMs: PING_INTERVAL_MS, idleConnectionTimeoutMs: IDLE_CONNECTION_MS },
    { ...options, settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false } },
  )
  const transport = createConnectTransport({ httpVersion: '2', baseUrl: authority, sessionManager: sessions })
  return { client: createClient(HostService, transport), close: (): void => sessions.abort() }
}

function parseAddress(
  address: string,
  tls: HostAgentTls | undefined,
): { authority: string; options: SecureClientSessionOptions } {
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(address)?.[1]
  if (path !== undefined)
    return { authority: 'http://host-agent', options: { createConnection: () => connectSocket(path) } }
  if (/^http:\/\/[^/]+\/?$/.test(address)) return { authority: address, options: {} }
  if (/^https:\/\/[^/]+\/?$/.test(address)) return { authority: address, options: readTls(tls) }
  throw new AppError(
    'invalid_config',
    'WRENN_HOST_AGENT_ADDRESS must be unix:/path, http://host:port or https://host:port.',
  )
}

function readTls(tls: HostAgentTls | undefined): SecureClientSessionOptions {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file))
  const [ca, cert, key] = [read(tls?.caFile), read(tls?.certFile), read(tls?.keyFile)]
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }), minVersion: 'TLSv1.3' }
}
