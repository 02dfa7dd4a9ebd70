import { setTimeout as delay } from 'node:timers/promises'
import { errorText, groupBy, type Logger } from '@wrenn/base'
import { statsRanges } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from '../../store/database.js'
import { findBuckets } from '../../store/usage-ledger.js'
import {
  closeDays,
  findRollUpState,
  havePassed,
  keepLedgerFrom,
  lockRollUps,
  openTransactions,
  type Peak,
  pruneLedger,
  prunePeaks,
  pruneRollUps,
  putPeaks,
  rollUpDay,
  setRolledUntil,
} from '../../store/usage-roll-ups.js'
import { pruneTraffic } from '../../store/usage-traffic.js'
import { Rounds } from '../rounds.js'
import { dayAfter } from './days.js'
import { fill, type Steps } from './series.js'

const EVERY_MS = 60_000
/** A clock that is set back by less does not reach a day that is closed. */
const GRACE_SEC = 60
const LOOK_FOR_OPEN_MS = 50
const LOOKS_FOR_OPEN = 100
/** Of one day; more than the largest platform takes. */
const DAY_TIMEOUT_MS = 10 * 60_000
const PRUNE_BATCH = 5_000
/** More than the longest range of stats. */
const PEAK_DAYS = 32
/** Of the longest range of stats; a day has whole ones. */
const PEAK_STEP_SEC = statsRanges['30d'].stepSec

interface UsageRollUpDeps {
  readonly db: Db
  readonly logger: Logger
  /** How long the ledger is kept; 0: for ever. */
  readonly ledgerDays: number
  /** How long roll-ups are kept; 0: for ever. */
  readonly rollUpDays: number
  /** @default 60 000 */
  readonly everyMs?: number
}

/**
 * Rolls days of the ledger up when they have passed. A day is closed first; once all transactions that may not know it have ended, nothing
 * is entered in it any more, whatever clocks say, and its sums are final. Any control plane does it, one at a time, a day a transaction.
 */
export class UsageRollUp extends Rounds {
  readonly #deps: UsageRollUpDeps

  constructor(deps: UsageRollUpDeps) {
    const { everyMs = EVERY_MS, logger } = deps
    super(
      () => this.roll(),
      everyMs,
      (error) => logger.warn({ error: errorText(error) }, 'usage.not_rolled_up'),
    )
    this.#deps = deps
  }

  /** One round: all days that can be, and what is too old is forgotten. */
  async roll(): Promise<void> {
    const { db } = this.#deps
    await closeDays(db, GRACE_SEC)
    const { closedUntil, rolledUntil } = await findRollUpState(db)
    const until = closedUntil.toISOString().slice(0, 10)
    if (rolledUntil < until) {
      if (!(await this.#isSettled())) return
      while (!this.signal.aborted && (await this.#rollUpNext(until)));
    }
    await this.#prune()
  }

  /** @returns whether there may be more */
  async #rollUpNext(until: string): Promise<boolean> {
    const { db, logger } = this.#deps
    const startedAt = performance.now()
    const day = await db.transaction().execute(async (tx) => {
      const state = await lockRollUps(tx)
      if (state === undefined || state.rolledUntil >= until) return undefined
      await rollUp(tx, state.rolledUntil)
      await setRolledUntil(tx, dayAfter(state.rolledUntil, 1))
      return state.rolledUntil
    })
    if (day === undefined) return false
    logger.info({ day, ms: Math.round(performance.now() - startedAt) }, 'usage.rolled_up')
    return true
  }

  /** Waits for the transactions that may not have seen that the day is closed; the next round goes on waiting for a long one. */
  async #isSettled(): Promise<boolean> {
    const { db } = this.#deps
    const open = await openTransactions(db)
    for (let looks = 0; looks < LOOKS_FOR_OPEN && !this.signal.aborted; looks++) {
      if (await havePassed(db, open)) return true
      await delay(LOOK_FOR_OPEN_MS, undefined, { signal: this.signal }).catch(() => {})
    }
    return false
  }

  async #prune(): Promise<void> {
    const { db, ledgerDays, rollUpDays } = this.#deps
    await prunePeaks(db, PEAK_DAYS)
    if (rollUpDays > 0) await pruneRollUps(db, rollUpDays)
    if (ledgerDays === 0) return
    if (await keepLedgerFrom(db, ledgerDays)) await pruneTraffic(db)
    while (!this.signal.aborted && (await pruneLedger(db, PRUNE_BATCH)) === PRUNE_BATCH);
  }
}

/** Writes a day's sums and peaks, in place of those that are there. The transaction holds the state. */
export async function rollUp(tx: Db, day: string): Promise<void> {
  await sql`SELECT set_config('statement_timeout', ${String(DAY_TIMEOUT_MS)}, true)`.execute(tx)
  await rollUpDay(tx, day)
  const from = new Date(day)
  const to = new Date(dayAfter(day, 1))
  const found = await findBuckets(tx, { from, to, stepSec: PEAK_STEP_SEC }, undefined)
  const buckets = groupBy(found, ({ teamId }) => teamId)
  const steps: Steps = { from, count: (to.getTime() - from.getTime()) / 1000 / PEAK_STEP_SEC, stepSec: PEAK_STEP_SEC }
  const peaks = [...buckets].flatMap(([teamId, ofTeam]) =>
    fill(steps, ofTeam).map(
      (levels, index): Peak => ({ teamId, at: new Date(from.getTime() + index * PEAK_STEP_SEC * 1000), ...levels }),
    ),
  )
  await putPeaks(tx, day, peaks)
}
