import { type Logger, noSteps, noTracer, stepsFromFile, type Tracer } from '@wrenn/base'
import { type Background, createBackground, LOOK_EVERY_MS } from './background.js'
import { createCapsuleServices } from './capsule-services.js'
import type { ControlPlaneConfig } from './config.js'
import { ApiKeys, ensureFirstKey, KeyAdmin, KeyWatch } from './domain/accounts/index.js'
import { Audit, AuditChains } from './domain/audit/index.js'
import { Egress } from './domain/capsules/index.js'
import { ChannelLog, Channels } from './domain/channels/index.js'
import { EventFeed } from './domain/events/index.js'
import { HostAuthority, HostWatch, JoinedHosts, Joining, requireNoneElsewhere } from './domain/hosts/index.js'
import { CallMeter, readQuota } from './domain/limits/index.js'
import { CapsuleHistory } from './domain/metrics/index.js'
import { Drains, Moves } from './domain/moves/index.js'
import { createPeople } from './domain/people/index.js'
import { AllCapsules, PlatformWatch, UnknownCapsules } from './domain/platform/index.js'
import { Snapshots } from './domain/points/index.js'
import { Readiness, Reconciler } from './domain/reconcile/index.js'
import { Keyring, readKeyFile, TeamSecrets } from './domain/secrets/index.js'
import type { OpenTeamStates } from './domain/stored/index.js'
import { Invitations, Members, Plans, TeamAdmin, Teams } from './domain/teams/index.js'
import { createBuilds } from './domain/templates/index.js'
import { Usage } from './domain/usage/index.js'
import { createApp } from './http/app.js'
import type { Services } from './http/context.js'
import { readDashboard } from './http/dashboard/dashboard.js'
import { DRAIN_MS, drainListeners } from './http/drain.js'
import { SecureListener } from './http/secure-listener.js'
import { createProviders } from './identity/index.js'
import { Mailer } from './mail/index.js'
import { Sender } from './notify/index.js'
import { migrateUp, openDatabase } from './store/database.js'
import { Notifications } from './store/notifications.js'
import { findTeamName } from './store/teams.js'
import { teamStatesOf } from './team-states.js'
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
  /** What teams have in the object store. @default that of the configuration */
  readonly openStates?: OpenTeamStates
  /** @default makes no spans */
  readonly tracer?: Tracer
}

/** Migrates the database, starts the reconciler and listens. Disposing finishes requests and operations, then leaves. */
export async function startControlPlane(
  config: ControlPlaneConfig,
  logger: Logger,
  options: ControlPlaneOptions = {},
): Promise<ControlPlane> {
  const { tickMs = LOOK_EVERY_MS, drainMs = DRAIN_MS, eventBeatMs, tracer = noTracer } = options
  const dashboard = await readDashboard(config.dashboardFile)
  const { encryptionKeyFile, encryptionKeys } = config
  const keysOfFile = encryptionKeyFile === undefined ? [] : await readKeyFile(encryptionKeyFile, logger)
  const keyring = new Keyring([...encryptionKeys, ...keysOfFile])
  const db = openDatabase({ url: config.databaseUrl, maxConnections: config.databaseConnections, logger })
  const notifications = new Notifications({ url: config.databaseUrl, logger })
  const apiKeys = new ApiKeys({ db, notifications, logger })
  const auditChains = new AuditChains({ db, logger, retentionMs: config.auditRetentionMs, lookEveryMs: tickMs })
  const mailer = new Mailer()
  const { signUp, publicUrl, accountGraceSec, pendingAccountSec } = config
  const providers = createProviders(config.providers)
  const people = createPeople({
    ...{ db, notifications, apiKeys, mailer, providers, keyring, logger },
    ...{ signUp, publicUrl, accountGraceSec, pendingAccountSec },
    ...(options.tickMs === undefined ? {} : { eraseEveryMs: options.tickMs }),
  })
  const events = new EventFeed({ db, notifications, ...(eventBeatMs === undefined ? {} : { beatMs: eventBeatMs }) })
  const sender = new Sender({ allowed: config.channels.allowed })
  const keyWatch = new KeyWatch({ db, logger })
  const core = createCapsuleServices({ config, db, notifications, apiKeys, keyWatch, keyring, logger, tracer, tickMs })
  const { host, placement, operations, activity, accessLog, capsules, lifecycle, checkpoints, inFlight, proxy } = core
  const authority = new HostAuthority({ db, keyring })
  const hostWatch =
    host.only === undefined
      ? new HostWatch({ db, authority, hosts: host, logger, tracer, lookEveryMs: tickMs })
      : undefined
  const { limits, lifecycleTimeoutMs } = config
  const snapshots = new Snapshots({ db, host, operations, limits, logger })
  const secrets = new TeamSecrets({ db, keyring, logger })
  const egress = new Egress({ db, host, logger, keyring, secrets, lookEveryMs: tickMs })
  const callMeter = new CallMeter({ db, logger, defaultLimit: limits.quota.apiCallsPerMin })
  const canHibernate = config.objectStore !== undefined
  const moves = new Moves({ db, host, placement, operations, limits, keyring, canHibernate })
  const background = createBackground({
    ...{ config, db, notifications, host, capsules, lifecycle, moves, snapshots, sender, keyring, logger },
    openStates: options.openStates ?? teamStatesOf(config.objectStore),
    ...{ tickMs: options.tickMs, channelFirstDelayMs: options.channelFirstDelayMs },
  })
  const reconciler = new Reconciler({
    ...{ db, host, operations, snapshots, limits, logger },
    silentMs: config.hostSilentMs,
    lostGraceMs: config.lostGraceMs,
    retentionMs: config.retentionMs,
    tickMs,
  })
  const builds = createBuilds({
    ...{ db, host, placement, capsules, snapshots, lifecycle, keyring, wake: inFlight.wake },
    ...{ limits, buildLimits: config.builds },
    ...{ snapshotWaitMs: lifecycleTimeoutMs, retentionMs: config.retentionMs, logger, tracer, lookEveryMs: tickMs },
    reach: config.stepFile === undefined ? noSteps : stepsFromFile(config.stepFile),
  })
  const joinedHosts = new JoinedHosts({ db, authority, takesHosts: hostWatch !== undefined })
  const unknownCapsules = new UnknownCapsules({ db, host })
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
    unknownCapsules,
    moves,
    joinedHosts,
    drains: new Drains({ db, joinedHosts, moves }),
    joining: new Joining({ db, authority, throttle: people.services.throttle }),
    onOperationEnd: (listener) => operations.onEnd(listener),
    platformWatch: new PlatformWatch({
      db,
      host,
      unknownCapsules,
      mail: config.mail,
      lago: config.lago,
      version: VERSION,
    }),
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
    registryLogins: builds.logins,
    secrets,
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
    tracer,
    version: VERSION,
  }
  // In the order in which they stop: what others write into goes on last.
  const parts: readonly Background[] = [people, callMeter, ...background, accessLog, auditChains]
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
    for (const part of parts) await part.stop()
    await notifications.stop()
    await activity.flush()
    await apiKeys.flush()
    proxy.close()
    await hostWatch?.stop()
    host.close()
    await db.destroy()
  }
  try {
    await migrateUp(db)
    if (hostWatch === undefined) await requireNoneElsewhere(db)
    if (config.apiKeyFile !== undefined) await ensureFirstKey(db, config.apiKeyFile, logger)
    if (config.setUpFile !== undefined) await people.services.setUp.prepare(config.setUpFile)
    notifications.start()
    await hostWatch?.start()
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
    for (const part of parts) part.start()
    builds.start()
    const tlsPort = secure?.port
    logger.info({ url, tlsPort, version: VERSION }, 'control_plane.started')
    return { url, tlsPort, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}
