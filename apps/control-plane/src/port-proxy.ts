import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { AppError, errorText, type Logger, noTracer } from '@wrenn/base'
import { LOOK_EVERY_MS } from './background.js'
import { createCapsuleServices, JOINED } from './capsule-services.js'
import type { ControlPlaneConfig } from './config.js'
import type { ControlPlane, ControlPlaneOptions } from './control-plane.js'
import { ApiKeys, KeyWatch } from './domain/accounts/index.js'
import { Readiness } from './domain/reconcile/index.js'
import { Keyring } from './domain/secrets/index.js'
import { DRAIN_MS, drainListeners } from './http/drain.js'
import { createFront } from './http/front.js'
import { SecureListener } from './http/secure-listener.js'
import { refuseRequest, refuseUpgrade } from './proxy/index.js'
import { type Db, listMigrations, openDatabase } from './store/database.js'
import { Notifications } from './store/notifications.js'
import { VERSION } from './version.js'

const KEEP_ALIVE_MS = 72_000

/** A proxy alone listens as a control plane does. */
export type RunningProxy = ControlPlane

/**
 * The port proxy without the API: several may stand beside each other and beside control planes, on one database and host agent. It leaves the
 * database's schema and everything that is not on the way to a port to the control planes; whom it wakes, it wakes itself.
 * @throws AppError `invalid_config` when the database is not of this version
 */
export async function startPortProxy(
  config: ControlPlaneConfig,
  logger: Logger,
  options: ControlPlaneOptions = {},
): Promise<RunningProxy> {
  const {
    tickMs = LOOK_EVERY_MS,
    drainMs = DRAIN_MS,
    lookForCertificateEveryMs: lookEveryMs,
    handshakeWithinMs,
    tracer = noTracer,
  } = options
  if (config.hostAgentAddress === JOINED) {
    const message = 'A proxy alone calls no host that has joined: its ports are served by control planes.'
    throw new AppError('invalid_config', message)
  }
  const db = openDatabase({ url: config.databaseUrl, maxConnections: config.databaseConnections, logger })
  const notifications = new Notifications({ url: config.databaseUrl, logger })
  const apiKeys = new ApiKeys({ db, notifications, logger })
  const keyWatch = new KeyWatch({ db, logger })
  const keyring = new Keyring([])
  const core = createCapsuleServices({ config, db, notifications, apiKeys, keyWatch, keyring, logger, tracer, tickMs })
  const { host, operations, activity, accessLog, inFlight, proxy } = core
  const health = new Health(new Readiness(db, host))
  const upgrades = createServer()
  const server = createFront(proxy, { request: health.answer, upgrades, keepAliveMs: KEEP_ALIVE_MS })
  upgrades.on('upgrade', (request: IncomingMessage, client: Socket) => refuseUpgrade(request, client, noPort(request)))
  let secure: SecureListener | undefined
  const stop = async (): Promise<void> => {
    const settle = (): void => proxy.settle()
    await drainListeners({ server, secure, settle, close: () => closed(server), drainMs })
    await operations.drain(drainMs)
    inFlight.stop()
    keyWatch.stop()
    await accessLog.stop()
    await notifications.stop()
    await activity.flush()
    await apiKeys.flush()
    proxy.close()
    host.close()
    await db.destroy()
  }
  try {
    await requireSchema(db)
    notifications.start()
    accessLog.start()
    const url = await listen(server, config)
    if (config.tls !== undefined) {
      secure = await SecureListener.listen(server, {
        ...{ ...config.tls, logger, lookEveryMs, handshakeWithinMs },
        http2: proxy,
      })
    }
    const tlsPort = secure?.port
    logger.info({ url, tlsPort, version: VERSION }, 'proxy.started')
    return { url, tlsPort, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function requireSchema(db: Db): Promise<void> {
  const missing = (await listMigrations(db)).filter(({ appliedAt }) => appliedAt === undefined)
  if (missing.length === 0) return
  const names = missing.map(({ name }) => name).join(', ')
  const message = `The database lacks migrations that version ${VERSION} needs: ${names}. A control plane of this version brings them when it starts.`
  throw new AppError('invalid_config', message)
}

async function listen(server: Server, { host, port }: Pick<ControlPlaneConfig, 'host' | 'port'>): Promise<string> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host, resolve)
    })
  } catch (cause) {
    throw new AppError('conflict', `Cannot listen: ${errorText(cause)}. WRENN_HOST and WRENN_PORT name the address.`)
  }
  const { address, family, port: bound } = server.address() as AddressInfo // a TCP listener has one until it is closed
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`
}

async function closed(server: Server): Promise<void> {
  if (server.listening) await new Promise((resolve) => server.close(resolve))
}

function noPort({ headers }: IncomingMessage): AppError {
  const host = (headers.host ?? '').slice(0, 300)
  const message = `This is a proxy for ports of capsules, and ${host || 'a request without a host'} names none: the API is somewhere else.`
  return new AppError('not_found', message)
}

/** What a proxy alone answers itself: whether it lives and works, as a control plane does. */
class Health {
  readonly #readiness: Readiness

  constructor(readiness: Readiness) {
    this.#readiness = readiness
  }

  readonly answer = (request: IncomingMessage, response: ServerResponse): void => {
    const path = request.url?.split('?')[0]
    const isAsked = request.method === 'GET' || request.method === 'HEAD'
    if (isAsked && path === '/health') sendJson(request, response, 200, { status: 'ok', version: VERSION })
    else if (isAsked && path === '/ready') void this.#answerReady(request, response)
    else refuseRequest(request, response, noPort(request))
  }

  async #answerReady(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { checks } = await this.#readiness.check()
    const { database, host } = checks
    const ready = database.ok && host.ok
    sendJson(request, response, ready ? 200 : 503, { ready, checks: { database, host } })
  }
}

function sendJson(request: IncomingMessage, response: ServerResponse, status: number, value: object): void {
  const body = Buffer.from(JSON.stringify(value))
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': body.length })
  response.end(request.method === 'HEAD' ? undefined : body)
}
