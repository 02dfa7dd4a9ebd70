import type { ClientHttp2Stream, OutgoingHttpHeaders, SecureClientSessionOptions } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { createClient, type Transport } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { noTracer, type Tracer } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import { clientSpans } from '@wrenn/tracing'
import type { HostAgentTls } from '../config.js'
import { parseAddress, readTls } from './address.js'
import type { HostPlace } from './remote-host.js'

const STREAM_WINDOW_BYTES = 1024 * 1024
/** Far above any number of stalled streams, so that a slow reader never holds up the other calls on the connection. */
const CONNECTION_WINDOW_BYTES = 1024 * 1024 * 1024
const PING_INTERVAL_MS = 20_000
const IDLE_CONNECTION_MS = 10 * 60_000

/** The host agent's RPC, one promise or stream per method; errors are Connect's, which `fromHostError` turns into ours. */
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
    failWithoutResponse(stream)
    return stream
  }
}

/**
 * A host agent that stops in good order closes its streams without an error code, which Connect takes for nothing: a call that
 * it had not answered would wait for its whole deadline.
 */
function failWithoutResponse(stream: ClientHttp2Stream): void {
  let hasResponse = false
  stream.once('response', () => {
    hasResponse = true
  })
  stream.once('close', () => {
    if (hasResponse) return
    stream.emit('error', Object.assign(new Error('http/2 stream closed before a response'), { code: 'ECONNRESET' }))
  })
}

/** Calls whose large side goes to the host. */
const uploads = new Set<string>([
  HostService.method.sendInput.name,
  HostService.method.writeFile.name,
  HostService.method.writeArchive.name,
  HostService.method.importImage.name,
])
/** Calls whose large side comes from the host. */
const downloads = new Set<string>([
  HostService.method.startProcess.name,
  HostService.method.connectProcess.name,
  HostService.method.readFile.name,
  HostService.method.readArchive.name,
  HostService.method.exportSnapshot.name,
  HostService.method.diffCheckpoints.name,
  HostService.method.readCheckpointFile.name,
])

/**
 * A client of one host agent over HTTP/2. `place` is `unix:/path`, `http://host:port`, `https://host:port` with mutual TLS, or a machine that has
 * joined. Its connections open at the first call and again after they broke.
 *
 * Node's HTTP/2 does not read from a connection while a write to it is under way. With much to say in both directions both
 * ends come to write, and neither reads ever again. So each direction has a connection of its own, and a third serves short
 * calls, which then never wait behind bytes. With a tracer, calls for what is traced are measured, and the host is told of the trace.
 * @throws AppError `invalid_config`
 */
export function createHostClient(place: HostPlace, tls?: HostAgentTls, tracer: Tracer = noTracer) {
  const open = () => openLink(place, tls, tracer)
  const [control, up, down] = [open(), open(), open()]
  const linkOf = (method: string): Transport =>
    (uploads.has(method) ? up : downloads.has(method) ? down : control).transport
  const transport: Transport = {
    unary: (method, ...rest) => linkOf(method.name).unary(method, ...rest),
    stream: (method, ...rest) => linkOf(method.name).stream(method, ...rest),
  }
  const close = (): void => {
    for (const link of [control, up, down]) link.sessions.abort()
  }
  if (typeof place !== 'string') place.onChange(close) // the next call opens another one
  return { client: createClient(HostService, transport), transport, close }
}

function openLink(place: HostPlace, tls: HostAgentTls | undefined, tracer: Tracer) {
  const { authority, options } = sessionTo(place, tls)
  const sessions = new WideSessionManager(
    authority,
    { pingIntervalMs: PING_INTERVAL_MS, idleConnectionTimeoutMs: IDLE_CONNECTION_MS },
    { ...options, settings: { initialWindowSize: STREAM_WINDOW_BYTES, enablePush: false } },
  )
  return {
    sessions,
    transport: createConnectTransport({
      httpVersion: '2',
      baseUrl: authority,
      sessionManager: sessions,
      interceptors: tracer.isOn
        ? [clientSpans({ tracer, tells: true, fields: { 'peer.service': 'wrenn-host-agent' } })]
        : [],
    }),
  }
}

function sessionTo(
  place: HostPlace,
  tls: HostAgentTls | undefined,
): { readonly authority: string; readonly options: SecureClientSessionOptions } {
  if (typeof place !== 'string') {
    return { authority: 'http://host-agent', options: { createConnection: () => place.connect(['h2']) } }
  }
  const { path, url } = parseAddress(place)
  if (path !== undefined)
    return { authority: 'http://host-agent', options: { createConnection: () => connectSocket(path) } }
  return { authority: place, options: url.protocol === 'https:' ? readTls(tls) : {} }
}
