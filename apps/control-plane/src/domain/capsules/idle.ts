import { AppError, errorText, type Logger } from '@wrenn/base'
import { type AwakeReason, awakeReasons } from '@wrenn/protocol'
import type { GetActivityResponse } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import { type DueCapsule, findIdle, keepAwake, recordUse } from '../../store/idle.js'
import type { CapsuleRow } from '../../store/schema.js'
import { Rounds } from '../rounds.js'
import type { Activity } from './activity.js'
import { pausesAt } from './capsule-view.js'
import type { Lifecycle } from './lifecycle.js'

const TICK_MS = 1_000
const ASK_TIMEOUT_MS = 10_000
/** Asked about in one call. */
const BATCH = 200
/** Started per tick: a pause writes. */
const MAX_PAUSES = 8
const BACKOFF = { firstMs: 5_000, maxMs: 10 * 60_000 }

type HostActivity = GetActivityResponse['capsules'][number]

interface IdleDeps {
  readonly db: Db
  readonly host: Host
  readonly lifecycle: Pick<Lifecycle, 'pause'>
  readonly activity: Activity
  readonly logger: Logger
  /** @default 1000 */
  readonly tickMs?: number
  /** How long a failed pause is left alone; doubles. @default 5 s to 10 min */
  readonly backoff?: { readonly firstMs: number; readonly maxMs: number }
}

/**
 * Pauses capsules of a host that nobody uses; never ends one. Everything it goes by is in the database and on the host, so it forgets
 * nothing in a restart, and several control planes may do it at once: the pause itself is compare-and-set.
 */
export class Idle {
  readonly #deps: IdleDeps
  readonly #rounds: Rounds

  constructor(deps: IdleDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'idle.retry')
    this.#rounds = new Rounds(() => this.look(), deps.tickMs ?? TICK_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for the round that is under way. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /** Looks once. */
  async look(): Promise<void> {
    const { db, host, activity, backoff = BACKOFF } = this.#deps
    // What this process knows must be in the database before the database is asked.
    await activity.flush()
    const due = await findIdle(db, BATCH, { ...backoff, hostId: host.joinedId })
    if (due.length === 0) return
    const capsuleIds = due.map(({ id }) => id)
    const answer = await host.call((client) => client.getActivity({ capsuleIds }, { timeoutMs: ASK_TIMEOUT_MS }))
    const known = new Map(answer.capsules.map((capsule) => [capsule.capsuleId, capsule]))
    let pauses = 0
    for (const capsule of due) {
      const seen = known.get(capsule.id)
      // One that the host does not have is the reconciler's matter.
      if (seen === undefined || pauses === MAX_PAUSES || !(await this.#isIdle(capsule, seen))) continue
      pauses++
      await this.#pause(capsule)
    }
  }

  async #isIdle({ id }: DueCapsule, seen: HostActivity): Promise<boolean> {
    const { db } = this.#deps
    const reasons = this.#reasons(id, seen)
    if (reasons.length > 0) {
      await keepAwake(db, id, reasons)
      return false
    }
    return await recordUse(db, id, new Date(Number(seen.lastActiveAtMs)))
  }

  #reasons(id: string, { reasons }: HostActivity): readonly AwakeReason[] {
    const all = this.#deps.activity.hasStreams(id) ? [...reasons, 'stream'] : reasons
    return awakeReasons.filter((reason) => all.includes(reason))
  }

  /** A pause that fails leaves the capsule running; its failed operation is what delays the next attempt. */
  async #pause({ id, team_id: teamId }: DueCapsule): Promise<void> {
    const { lifecycle, activity, logger } = this.#deps
    const isOver = (row: CapsuleRow): boolean => (pausesAt(row)?.getTime() ?? Number.POSITIVE_INFINITY) <= Date.now()
    const onlyIf = (row: CapsuleRow): boolean => !activity.hasStreams(id) && !activity.isUsed(id) && isOver(row)
    try {
      // It may have been used while its host was asked.
      await activity.flush()
      await lifecycle.pause(teamId, id, { reason: 'idle', waitMs: 0, onlyIf })
      logger.info({ capsuleId: id }, 'capsule.idle')
    } catch (error) {
      // Used, or moved by somebody else, since the look.
      if (AppError.is(error, 'conflict', 'invalid_state', 'capsule_not_found')) return
      logger.warn({ capsuleId: id, error: errorText(error) }, 'capsule.idle_pause_failed')
    }
  }
}
