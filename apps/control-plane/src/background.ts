import type { Logger } from '@wrenn/base'
import type { ControlPlaneConfig } from './config.js'
import { type Capsules, Hibernator, type Lifecycle } from './domain/capsules/index.js'
import { ChannelDispatcher, ChannelSweeper } from './domain/channels/index.js'
import { EventSweeper } from './domain/events/index.js'
import { MetricsCollector, MetricsSweeper } from './domain/metrics/index.js'
import { Drainer, type Moves } from './domain/moves/index.js'
import { PerHost } from './domain/per-host.js'
import type { Snapshots } from './domain/points/index.js'
import type { Keyring } from './domain/secrets/index.js'
import { type OpenTeamStates, StoredStates } from './domain/stored/index.js'
import { TeamSweeper } from './domain/teams/index.js'
import { LagoSender, TrafficCollector, UsageRollUp } from './domain/usage/index.js'
import type { Hosts } from './host/hosts.js'
import { LagoClient } from './lago/index.js'
import { createDelivery, linksBelow, MailSender } from './mail/index.js'
import type { Sender } from './notify/index.js'
import type { Db } from './store/database.js'
import type { Notifications } from './store/notifications.js'

/** How often a control plane looks at what the database says is to be done. */
export const LOOK_EVERY_MS = 1_000

/** Something that goes on from its start until its stop, which waits for what is under way. */
export interface Background {
  start(): void
  stop(): Promise<void> | void
}

interface BackgroundDeps {
  readonly config: ControlPlaneConfig
  readonly db: Db
  readonly notifications: Notifications
  readonly host: Hosts
  readonly capsules: Capsules
  readonly lifecycle: Lifecycle
  readonly moves: Moves
  /** `undefined`: there is no object store. */
  readonly openStates: OpenTeamStates | undefined
  readonly snapshots: Snapshots
  readonly sender: Sender
  readonly keyring: Keyring
  readonly logger: Logger
  /** How often all of them look; `undefined`: each as often as it is made for. */
  readonly tickMs: number | undefined
  readonly channelFirstDelayMs: number | undefined
}

/** What goes on beside requests. Several control planes share this work through the database. */
export function createBackground(deps: BackgroundDeps): readonly Background[] {
  const { config, db, notifications, host, capsules, snapshots, sender, keyring, logger, tickMs } = deps
  const { lifecycle, moves, openStates } = deps
  const { channelFirstDelayMs: firstDelayMs } = deps
  const { giveUpMs, keepMs } = config.channels
  const lookEveryMs = tickMs ?? LOOK_EVERY_MS
  const drainsOften = tickMs === undefined ? {} : { everyMs: tickMs, firstAgainMs: 10 * tickMs }
  const often = tickMs === undefined ? {} : { everyMs: tickMs }
  const delivery = createDelivery(config.mail, logger)
  return [
    new MailSender({ db, delivery, links: linksBelow(config.publicUrl), logger, lookEveryMs }),
    new TeamSweeper({
      ...{ db, logger, lookEveryMs },
      endCapsule: (teamId, id) => capsules.destroy(teamId, id, { waitMs: 0, reason: 'team_deleted' }),
      endSnapshot: (teamId, name) => snapshots.remove(teamId, name, undefined),
    }),
    new EventSweeper({ db, logger, ...often }),
    new ChannelDispatcher({
      ...{ db, notifications, sender, keyring, logger, lookEveryMs },
      ...(firstDelayMs === undefined ? {} : { firstDelayMs }),
    }),
    new ChannelSweeper({ db, logger, giveUpMs, keepMs, ...often }),
    new PerHost(host, (each) => new MetricsCollector({ db, host: each, logger, ...often })),
    new MetricsSweeper({ db, logger, ...often }),
    new UsageRollUp({
      ...{ db, logger, ledgerDays: config.usageLedgerDays, rollUpDays: config.usageRetentionDays },
      ...often,
    }),
    new PerHost(host, (each) => new TrafficCollector({ db, host: each, logger, ...often })),
    ...(openStates === undefined ? [] : [new StoredStates({ db, keyring, openStates, logger, ...often })]),
    ...(host.only === undefined ? [new Drainer({ db, moves, logger, ...drainsOften })] : []),
    ...(openStates === undefined || config.hibernateAfterSec === undefined || keyring.isEmpty
      ? []
      : [new Hibernator({ db, lifecycle, logger, afterSec: config.hibernateAfterSec, ...often })]),
    ...(config.lago === undefined
      ? []
      : [new LagoSender({ db, client: new LagoClient(config.lago), from: config.lago.from, logger, ...often })]),
  ]
}
