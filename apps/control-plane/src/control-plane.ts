import type { Logger } from '@wrenn/base'
import { createCapsuleServices } from './capsule-services.js'
import type { ControlPlaneConfig } from './config.js'
import { ApiKeys, ensureFirstKey, KeyAdmin, KeyWatch } from './domain/accounts/index.js'
import { Audit, AuditChains } from './domain/audit/index.js'
import { Egress } from './domain/capsules/index.js'
import { ChannelDispatcher, ChannelLog, ChannelSweeper, Channels } from './domain/channels/index.js'
import { EventFeed, EventSweeper } from './domain/events/index.js'
import { CallMeter, readQuota } from './domain/limits/index.js'
import { CapsuleHistory, MetricsCollector } from './domain/metrics/index.js'
import { createPeople } from './domain/people/index.js'
import { AllCapsules, PlatformWatch } from './domain/platform/index.js'
import { Snapshots } from './domain/points/index.js'
import { Readiness, Reconciler } from './domain/reconcile/index.js'
import { Keyring, readKeyFile } from './domain/secrets/index.js'
import { Invitations, Members, Plans, TeamAdmin, TeamSweeper, Teams } from './domain/teams/index.js'
import { createBuilds } from './domain/templates/index.js'
import { Usage, UsageRollUp } from './domain/usage/index.js'
import { createApp } from './http/app.js'
import type { Services } from './http/context.js'
import { readDashboard } from './http/dashboard/dashboard.js'
import { DRAIN_MS, drainListeners } from './http/drain.js'
import { SecureListener } from './http/secure-listener.js'
import { createProviders } from './identity/index.js'
import { createDelivery, linksBelow, Mailer, MailSender } from './mail/index.js'
import { Sender } from './notify/index.js'
import { migrateUp, openDatabase } from './store/database.js'
import { Notifications } from './store/notifications.js'
import { findTeamName } from './store/teams.js'
import { VERSION } from './version.js'

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
  /** How long a channel rests after its first failure. @default 1 000 */
  readonly channelFirstDelayMs?: number
  /** How often a stream of events says that it is alive. @default 15 000 */
  readonly eventBeatMs?: number
  /** How long a client may take to agree on TLS. @default 20 000 */
  readonly handshakeWithinMs?: number
}

/** Migrates the database, starts the reconciler and listens. Disposing finishes requests and operations, then leaves. */
export async function startControlPlane(
  config: ControlPlaneConfig,
  logger: Logger,
  options: ControlPlaneOptions = {},
): Promise<ControlPlane> {
  const dashboard = await readDashboard(config.dashboardFile)
  const { encryptionKeyFile, encryptionKeys } = config
  const keysOfFile = encryptionKeyFile === undefined ? [] : await readKeyFile(encryptionKeyFile, logger)
  const keyring = new Keyring([...encryptionKeys, ...keysOfFile])
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
  const { signUp, publicUrl, accountGraceSec, pendingAccountSec } = config
  const providers = createProviders(config.providers)
  const people = createPeople({
    ...{
      db,
      notifications,
      apiKeys,
      mailer,
      signUp,
      publicUrl,
      accountGraceSec,
      pendingAccountSec,
      providers,
      keyring,
      logger,
    },
    ...(options.tickMs === undefined ? {} : { eraseEveryMs: options.tickMs }),
  })
  const { eventBeatMs } = options
  const events = new EventFeed({ db, notifications, ...(eventBeatMs === undefined ? {} : { beatMs: eventBeatMs }) })
  const eventSweeper = new EventSweeper({
    db,
    logger,
    ...(options.tickMs === undefined ? {} : { everyMs: options.tickMs }),
  })
  const sender = new Sender({ allowed: config.channels.allowed })
  const channelDispatcher = new ChannelDispatcher({
    ...{ db, notifications, sender, keyring, logger },
    lookEveryMs: options.tickMs ?? 1_000,
    ...(options.channelFirstDelayMs === undefined ? {} : { firstDelayMs: options.channelFirstDelayMs }),
  })
  const { giveUpMs, keepMs } = config.channels
  const channelSweeper = new ChannelSweeper({
    ...{ db, logger, giveUpMs, keepMs },
    ...(options.tickMs === undefined ? {} : { everyMs: options.tickMs }),
  })
  const keyWatch = new KeyWatch({ db, logger })
  const { tickMs = 1_000, drainMs = DRAIN_MS } = options
  const core = createCapsuleServices({ config, db, notifications, apiKeys, keyWatch, logger, tickMs })
  const { hostLink, host, operations, activity, accessLog, capsules, lifecycle, checkpoints, inFlight, proxy } = core
  const { limits, lifecycleTimeoutMs } = config
  const snapshots = new Snapshots({ db, host, operations, limits, logger })
  const egress = new Egress({ db, host, logger, lookEveryMs: tickMs })
  const callMeter = new CallMeter({ db, logger, defaultLimit: limits.quota.apiCallsPerMin })
  const metricsCollector = new MetricsCollector({
    db,
    host,
    logger,
    ...(options.tickMs === undefined ? {} : { everyMs: options.tickMs }),
  })
  const usageRollUp = new UsageRollUp({
    ...{ db, logger, ledgerDays: config.usageLedgerDays, rollUpDays: config.usageRetentionDays },
    ...(options.tickMs === undefined ? {} : { everyMs: options.tickMs }),
  })
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
  const builds = createBuilds({
    db,
    host,
    capsules,
    snapshots,
    wake: inFlight.wake,
    limits,
    buildLimits: config.builds,
    snapshotWaitMs: lifecycleTimeoutMs,
    retentionMs: config.retentionMs,
    logger,
    lookEveryMs: tickMs,
  })
  const services: Services = {
    wake: inFlight.wake,
    atomic: inFlight.atomic,
    lifetimes: inFlight.lifetimes,
    apiKeys,
    keyAdmin: new KeyAdmin({ db, apiKeys }),
    keyWatch,
    ...people.services,
    teams: new Teams({ db, onChange: people.onChange, onAuditChange: () => accessLog.forget() }),
    teamAdmin: new TeamAdmin(db),
    plans: new Plans(db),
    allCapsules: new AllCapsules(db),
    onOperationEnd: (listener) => operations.onEnd(listener),
    platformWatch: new PlatformWatch({ db, host, mail: config.mail, version: VERSION }),
    callMeter,
    members: new Members({ db, mailer, onChange: people.onChange }),
    invitations: new Invitations({ db, mailer }),
    audit: new Audit({ db, chains: auditChains }),
    accessLog,
    events,
    channels: new Channels({ db, keyring, sender }),
    channelLog: new ChannelLog(db),
    capsules,
    lifecycle,
    egress,
    checkpoints,
    snapshots,
    templateBuilds: builds.service,
    templateTags: builds.tags,
    teamName: (teamId) => findTeamName(db, teamId),
    quota: (teamId) => readQuota({ db, host, callMeter }, teamId, limits),
    host,
    history: new CapsuleHistory({ db, host }),
    usage: new Usage(db),
    activity,
    readiness: new Readiness(db, host),
    limits,
    dashboard,
    proxyDomain: config.proxyDomains[0] ?? 'localhost',
    corsOrigins: config.corsOrigins,
    trustedProxies: config.trustedProxies,
    logger,
    version: VERSION,
  }
  const app = await createApp(services, proxy)
  let secure: SecureListener | undefined
  const stop = async (): Promise<void> => {
    const settle = (): void => {
      proxy.settle()
      events.stop()
    }
    await drainListeners({ server: app.server, secure, settle, close: () => app.close(), drainMs })
    await Promise.all([reconciler.stop(), egress.stop(), builds.stop()])
    await inFlight.settle()
    await operations.drain(drainMs)
    inFlight.stop()
    keyWatch.stop()
    await people.stop()
    await teamSweeper.stop()
    await callMeter.stop()
    await eventSweeper.stop()
    await channelDispatcher.stop()
    await channelSweeper.stop()
    await metricsCollector.stop()
    await usageRollUp.stop()
    await accessLog.stop()
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
    if (config.setUpFile !== undefined) await people.services.setUp.prepare(config.setUpFile)
    notifications.start()
    const url = await app.listen({ host: config.host, port: config.port })
    if (config.tls !== undefined) {
      const { lookForCertificateEveryMs: lookEveryMs, handshakeWithinMs } = options
      secure = await SecureListener.listen(app.server, {
        ...{ ...config.tls, logger, lookEveryMs, handshakeWithinMs },
        http2: proxy,
      })
    }
    reconciler.start()
    egress.start()
    inFlight.start()
    accessLog.start()
    auditChains.start()
    mailSender.start()
    people.start()
    teamSweeper.start()
    callMeter.start()
    eventSweeper.start()
    channelDispatcher.start()
    channelSweeper.start()
    metricsCollector.start()
    usageRollUp.start()
    builds.start()
    const tlsPort = secure?.port
    logger.info({ url, tlsPort, version: VERSION }, 'control_plane.started')
    return { url, tlsPort, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}
