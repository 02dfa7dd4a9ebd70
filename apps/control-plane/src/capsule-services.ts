import type { Logger, Tracer } from '@wrenn/base'
import type { ControlPlaneConfig } from './config.js'
import type { ApiKeys, KeyWatch } from './domain/accounts/index.js'
import { AccessLog } from './domain/audit/index.js'
import { Activity, Capsules, Lifecycle } from './domain/capsules/index.js'
import { Placement, whereaboutsIn } from './domain/hosts/index.js'
import { moveExecutor } from './domain/moves/index.js'
import { Operations } from './domain/operations/index.js'
import { Checkpoints } from './domain/points/index.js'
import { createExecutors, createInFlight } from './domain/reconcile/index.js'
import type { Keyring } from './domain/secrets/index.js'
import { Hosts } from './host/hosts.js'
import { linkHost } from './host/link.js'
import { clientIpOf, PortProxy, Routes } from './proxy/index.js'
import type { Db } from './store/database.js'
import type { Notifications } from './store/notifications.js'

interface CapsuleServicesDeps {
  readonly config: ControlPlaneConfig
  readonly db: Db
  readonly notifications: Notifications
  readonly apiKeys: ApiKeys
  readonly keyWatch: KeyWatch
  /** Without keys, rules of egress policies are left to control planes. */
  readonly keyring: Keyring
  readonly logger: Logger
  readonly tracer: Tracer
  readonly tickMs: number
}

/** In place of an address: those of the machines that have joined. */
export const JOINED = 'joined'
/** Also the channel's name in the trigger of the migration. */
const CAPSULE_REHOSTED = 'capsule_rehosted'

/** What reaching a capsule takes, waking it included: of a control plane, and of a proxy alone. Nothing runs yet. */
export function createCapsuleServices(deps: CapsuleServicesDeps) {
  const { config, db, notifications, apiKeys, keyWatch, keyring, logger, tracer, tickMs } = deps
  const { limits, startWaitMs, createTimeoutMs, createRetryMs, lifecycleTimeoutMs } = config
  const { hostAgentAddress: address, hostAgentTls: tls } = config
  const host =
    address === JOINED
      ? Hosts.joining(whereaboutsIn(db, notifications))
      : Hosts.only(linkHost(address, { tls, tracer }))
  notifications.listen(
    CAPSULE_REHOSTED,
    (id) => host.forget(id),
    () => host.forget(),
  )
  const placement = new Placement({ db, hosts: host, share: limits.hosts })
  const executors = createExecutors({
    ...{ db, host, keyring, logger, createTimeoutMs, createRetryMs, lifecycleTimeoutMs },
    placement,
  })
  const operations = new Operations({ db, logger, tracer, executors })
  operations.handle('move', moveExecutor({ db, host, placement, operations }))
  const activity = new Activity(db, logger)
  const accessLog = new AccessLog({ db, notifications, logger })
  const capsules = new Capsules({ db, host, operations, limits, placement, keyring, startWaitMs })
  const routes = new Routes({ db, notifications })
  const lifecycle = new Lifecycle({
    ...{ db, host, operations, limits, placement, keyring, canHibernate: config.objectStore !== undefined },
    onPortAccess: (id) => routes.forget(id),
  })
  const checkpoints = new Checkpoints({ db, host, operations, limits })
  const inFlight = createInFlight({
    db,
    notifications,
    host,
    capsules,
    lifecycle,
    checkpoints,
    operations,
    activity,
    accessLog,
    logger,
    startWaitMs,
    outputLimitBytes: limits.execOutputBytes,
    tickMs,
  })
  const proxy = new PortProxy({
    db,
    wake: inFlight.wake,
    routes,
    apiKeys,
    keyWatch,
    accessLog,
    openTunnel: host.openTunnel,
    activity,
    logger,
    clientIp: clientIpOf(config.trustedProxies),
    domains: config.proxyDomains.map((domain) => domain.replace(/:\d+$/, '')),
    maxConnections: config.proxyMaxConnections,
  })
  return {
    host,
    placement,
    operations,
    activity,
    accessLog,
    capsules,
    lifecycle,
    checkpoints,
    inFlight,
    proxy,
  }
}
