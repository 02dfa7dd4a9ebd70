import type { Logger } from '@wrenn/base'
import type { Hosts } from '../../host/hosts.js'
import { CapsuleChanges } from '../../store/capsule-changes.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { AccessLog } from '../audit/index.js'
import { type Activity, type Capsules, Idle, type Lifecycle, Lifetimes, Wake } from '../capsules/index.js'
import type { Operations } from '../operations/index.js'
import { PerHost } from '../per-host.js'
import { AtomicExecs, type Checkpoints } from '../points/index.js'

interface InFlightDeps {
  readonly db: Db
  readonly notifications: Notifications
  readonly host: Hosts
  readonly capsules: Capsules
  readonly lifecycle: Lifecycle
  readonly checkpoints: Checkpoints
  readonly operations: Operations
  readonly activity: Activity
  readonly accessLog: AccessLog
  readonly logger: Logger
  /** How long a call waits for its capsule. */
  readonly startWaitMs: number
  readonly outputLimitBytes: number
  /** How often idle capsules are looked for. @default 1000 */
  readonly tickMs?: number
}

/** What becomes of work in flight when capsules sleep, wake and go back. */
export interface InFlight {
  readonly wake: Wake
  readonly atomic: AtomicExecs
  readonly lifetimes: Lifetimes
  start(): void
  /** Begins nothing new. */
  settle(): Promise<void>
  /** Lets go of what has not ended. */
  stop(): void
}

/**
 * Wires what watches changes of capsules, wakes them, runs atomic commands, pauses the idle and ends lives that are over. Nothing runs before `start`.
 */
export function createInFlight(deps: InFlightDeps): InFlight {
  const { db, host, capsules, lifecycle, checkpoints, operations, activity, accessLog, logger } = deps
  const changes = new CapsuleChanges({ db, notifications: deps.notifications, logger })
  const wake = new Wake({ db, capsules, lifecycle, changes, host, waitMs: deps.startWaitMs })
  const { outputLimitBytes, tickMs = 1_000 } = deps
  const atomic = new AtomicExecs({ db, host, wake, checkpoints, operations, accessLog, outputLimitBytes, logger })
  const idle = new PerHost(host, (each) => new Idle({ db, host: each, lifecycle, activity, logger, tickMs }))
  const lifetimes = new Lifetimes({ db, capsules, lifecycle, logger, tickMs })
  return {
    wake,
    atomic,
    lifetimes,
    start: () => {
      idle.start()
      lifetimes.start()
    },
    settle: async () => {
      await Promise.all([idle.stop(), lifetimes.stop()])
    },
    stop: () => {
      atomic.stop()
      changes.stop()
    },
  }
}
