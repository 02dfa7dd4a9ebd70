import type { Logger } from '@wrenn/base'
import type { ControlPlaneConfig } from './config.js'
import { ApiKeys, ensureFirstKey, KeyAdmin, KeyWatch } from './domain/accounts/index.js'
import { Audit, AuditChains } from './domain/audit/index.js'
import { Activity, Capsules, Egress, Lifecycle } from './domain/capsules/index.js'
import { readQuota } from './domain/limits/index.js'
import { Operations } from './domain/operations/index.js'
import { createPeople } from './domain/people/index.js'
import { Checkpoints, Snapshots } from './domain/points/index.js'
import { createExecutors, createInFlight, Readiness, Reconciler } from './domain/reconcile/index.js'
import { Invitations, Members, TeamSweeper, Teams } from './domain/teams/index.js'
import { Host } from './host/host.js'
import { createHostClient } from './host/transport.js'
import { createTunnels } from './host/tunnel.js'
import { createApp } from './http/app.js'
import type { Services } from './http/context.js'
import { SecureListener } from './http/secure-listener.js'
import { createDelivery, linksBelow, Mailer, MailSender } from './mail/index.js'
import { PortProxy, Routes } from './proxy/index.js'
import { migrateUp, openDatabase } from './store/database.js'
import { Notifications } from './store/notifications.js'
import { findTeamName } from './store/teams.js'
import { VERSION } from './version.js'

const DRAIN_MS = 10_000
const CLOSE_IDLE_EVERY_MS = 50

/** A control plane that listens. Several may serve one database. */
export interface ControlPlane extends AsyncDisposable {
  /** Where it listens. */
  readonly url: string
  /** Port of the listener for TLS, if there is one. */
  readonly tlsPort: number | undefined
}

/** What only tests and `main.ts` set. */
export interface ControlPlaneOptions {
  /** How often the reconciler looks. @default 1000 */
  readonly tickMs?: number
  /** How long requests and operations may go on when it stops. @default 10 000 */
  readonly drainMs?: number
  /** How often a renewed certificate is looked for. @default 60 000 */
  readonly lookForCertificateEveryMs?: number
  /** How long a client may take to agree on TLS. @default 20 000 */
  readonly handshakeWithinMs?: number
}

/** Migrates the database, starts the reconciler and listens. Disposing finishes requests and operations, then leaves. */
export async function startControlPlane(
  config: ControlPlaneConfig,
  logger: Logger,
  options: ControlPlaneOptions = {},
): Promise<ControlPlane> {
  const db = openDatabase({ url: config.databaseUrl, maxConnections: config.databaseConnections, logger })
  const notifications = new Notifications({ url: config.databaseUrl, logger })
  const apiKeys = new ApiKeys({ db, notifications, logger })
  const auditChains = new AuditChains({
    db,
    logger,
    retentionMs: config.auditRetentionMs,
    lookEveryMs: options.tickMs ?? 1_000,
  })
  const mailSender = new MailSender({
    db,
    delivery: createDelivery(config.mail, logger),
    links: linksBelow(config.publicUrl),
    logger,
    lookEveryMs: options.tickMs ?? 1_000,
  })
  const mailer = new Mailer()
  const people = createPeople({ db, notifications, apiKeys, mailer, signUp: config.signUp, logger })
  const keyWatch = new KeyWatch({ db, logger })
  const hostLink = createHostClient(config.hostAgentAddress, config.hostAgentTls)
  const host = new Host(hostLink.client, config.hostAgentAddress)
  const { limits, createTimeoutMs, createRetryMs, lifecycleTimeoutMs } = config
  const executors = createExecutors({ db, host, logger, createTimeoutMs, createRetryMs, lifecycleTimeoutMs })
  const operations = new Operations({ db, logger, executors })
  const activity = new Activity(db, logger)
  const capsules = new Capsules({ db, host, operations, limits, startWaitMs: config.startWaitMs })
  const routes = new Routes({ db, notifications })
  const lifecycle = new Lifecycle({ db, host, operations, limits, onPortAccess: (id) => routes.forget(id) })
  const checkpoints = new Checkpoints({ db, host, operations, limits })
  const snapshots = new Snapshots({ db, host, operations, limits, logger })
  const { tickMs = 1_000, drainMs = DRAIN_MS } = options
  const egress = new Egress({ db, host, logger, lookEveryMs: tickMs })
  const teamSweeper = new TeamSweeper({
    db,
    logger,
    lookEveryMs: tickMs,
    endCapsule: (teamId, id) => capsules.destroy(teamId, id, { waitMs: 0, reason: 'team_deleted' }),
    endSnapshot: (teamId, name) => snapshots.remove(teamId, name, undefined),
  })
  const reconciler = new Reconciler({
    db,
    host,
    operations,
    snapshots,
    logger,
    silentMs: config.hostSilentMs,
    lostGraceMs: config.lostGraceMs,
    retentionMs: config.retentionMs,
    tickMs,
  })
  const inFlight = createInFlight({
    db,
    notifications,
    host,
    capsules,
    lifecycle,
    checkpoints,
    operations,
    activity,
    logger,
    startWaitMs: config.startWaitMs,
    outputLimitBytes: config.limits.execOutputBytes,
    tickMs,
  })
  const proxy = new PortProxy({
    db,
    wake: inFlight.wake,
    routes,
    apiKeys,
    keyWatch,
    openTunnel: createTunnels(config.hostAgentAddress, config.hostAgentTls),
    activity,
    logger,
    domains: config.proxyDomains.map((domain) => domain.replace(/:\d+$/, '')),
    maxConnections: config.proxyMaxConnections,
  })
  const services: Services = {
    wake: inFlight.wake,
    atomic: inFlight.atomic,
    lifetimes: inFlight.lifetimes,
    apiKeys,
    keyAdmin: new KeyAdmin({ db, apiKeys }),
    keyWatch,
    ...people.services,
    teams: new Teams({ db, onChange: people.onChange }),
    members: new Members({ db, mailer, onChange: people.onChange }),
    invitations: new Invitations({ db, mailer }),
    audit: new Audit({ db, chains: auditChains }),
    capsules,
    lifecycle,
    egress,
    checkpoints,
    snapshots,
    teamName: (teamId) => findTeamName(db, teamId),
    quota: (teamId) => readQuota({ db, host }, teamId, limits),
    host,
    activity,
    readiness: new Readiness(db, host),
    limits,
    proxyDomain: config.proxyDomains[0] ?? 'localhost',
    corsOrigins: config.corsOrigins,
    trustedProxies: config.trustedProxies,
    logger,
    version: VERSION,
  }
  const app = await createApp(services, proxy)
  let secure: SecureListener | undefined
  const stop = async (): Promise<void> => {
    // Kept-alive connections whose last answer ends from now on are nobody's to wait for.
    const idle = setInterval(() => app.server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
    const overdue = setTimeout(() => {
      app.server.closeAllConnections()
      secure?.closeAllConnections()
    }, drainMs)
    proxy.settle()
    await Promise.all([secure?.close(), app.close()])
    clearInterval(idle)
    clearTimeout(overdue)
    await Promise.all([reconciler.stop(), egress.stop()])
    await inFlight.settle()
    await operations.drain(drainMs)
    inFlight.stop()
    keyWatch.stop()
    await people.stop()
    await teamSweeper.stop()
    await auditChains.stop()
    await mailSender.stop()
    await notifications.stop()
    await activity.flush()
    await apiKeys.flush()
    proxy.close()
    hostLink.close()
    await db.destroy()
  }
  try {
    await migrateUp(db)
    if (config.apiKeyFile !== undefined) await ensureFirstKey(db, config.apiKeyFile, logger)
    notifications.start()
    const url = await app.listen({ host: config.host, port: config.port })
    if (config.tls !== undefined) {
      const { lookForCertificateEveryMs: lookEveryMs, handshakeWithinMs } = options
      const how = {
        ...{ ...config.tls, logger },
        ...(lookEveryMs === undefined ? {} : { lookEveryMs }),
        ...(handshakeWithinMs === undefined ? {} : { handshakeWithinMs }),
      }
      secure = await SecureListener.listen(app.server, how)
    }
    reconciler.start()
    egress.start()
    inFlight.start()
    auditChains.start()
    mailSender.start()
    people.start()
    teamSweeper.start()
    const tlsPort = secure?.port
    logger.info({ url, tlsPort, version: VERSION }, 'control_plane.started')
    return { url, tlsPort, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}
