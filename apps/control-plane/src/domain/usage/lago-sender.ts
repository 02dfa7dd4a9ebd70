import { errorText, type Logger } from '@wrenn/base'
import { LAGO_BATCH, type LagoClient, type LagoVerdict } from '../../lago/index.js'
import type { Db } from '../../store/database.js'
import {
  beginLago,
  findLagoBacklog,
  type LagoEvent,
  type LagoLease,
  type LagoTurnEnd,
  listDueLagoEvents,
  queueChangedDay,
  recordLago,
  releaseLago,
  renewLago,
  takeLago,
} from '../../store/lago-events.js'
import { backOffMs, rateDelayMs } from '../back-off.js'
import { Rounds } from '../rounds.js'
import { outcomeOf, toLagoInput } from './lago-outcome.js'

const EVERY_MS = 10_000
/** Longer than one call takes. */
const LEASE_MS = 60_000
const FIRST_DELAY_MS = 1_000
/** Single events refused without a word why, and none taken: it is not them, Lago takes nothing. */
const MAX_UNCLEAR = 3
const BROKEN_OFF = 'The platform could not note what came of it; it tries again.'

interface LagoSenderDeps {
  readonly db: Db
  readonly client: Pick<LagoClient, 'send'>
  /** The first day that is told of. @default that of the first round of any control plane */
  readonly from: string | undefined
  readonly logger: Logger
  /** @default 10 000 */
  readonly everyMs?: number
  /** How long Lago rests after its first failure. @default 1 000 */
  readonly firstDelayMs?: number
}

type Later = Extract<LagoVerdict, { readonly kind: 'later' }>
/** `lost`: another has the lease now. */
type BatchEnd = 'done' | 'lost' | Later

/**
 * Tells Lago what teams used, day by day, as one of several control planes that may, and one at a time. What is told is written down before
 * it is sent, and never changes; when its sender dies before it could note the answer, the same is sent again, which Lago knows by the
 * event's id.
 */
export class LagoSender extends Rounds {
  readonly #deps: LagoSenderDeps
  #since: string | undefined

  constructor(deps: LagoSenderDeps) {
    const { everyMs = EVERY_MS, logger } = deps
    super(
      () => this.send(),
      everyMs,
      (error) => logger.warn({ error: errorText(error) }, 'lago.round_failed'),
    )
    this.#deps = deps
    this.#since = deps.from
  }

  /** One round: all that is due, unless another control plane is at it or Lago rests. */
  async send(): Promise<void> {
    const { db } = this.#deps
    this.#since ??= await beginLago(db)
    const lease = await takeLago(db, this.#since, LEASE_MS)
    if (lease === undefined) return
    let end: LagoTurnEnd | undefined = this.#rest(lease.failures, BROKEN_OFF)
    try {
      end = await this.#work(lease, this.#since)
    } finally {
      if (end !== undefined) await releaseLago(db, lease, end)
    }
  }

  /** `undefined`: another has it now. */
  async #work(lease: LagoLease, since: string): Promise<LagoTurnEnd | undefined> {
    const { db } = this.#deps
    while (!this.signal.aborted && (await queueChangedDay(db, since)));
    let { failures } = lease
    while (!this.signal.aborted) {
      const events = await listDueLagoEvents(db, LAGO_BATCH)
      if (events.length === 0) return { delayMs: 0, failures: 0, problem: null }
      const end = await this.#batch(lease, events)
      if (end === 'lost') return undefined
      if (this.signal.aborted) break
      if (end !== 'done') return await this.#restAfter(failures, end)
      failures = 0
    }
    // Nothing that is broken off says anything of Lago.
    return { delayMs: 0, failures, problem: null }
  }

  async #batch(lease: LagoLease, events: readonly LagoEvent[]): Promise<BatchEnd> {
    const { db, client, logger } = this.#deps
    const parts: (readonly LagoEvent[])[] = [events]
    const refusals: string[] = []
    let takenCount = 0
    let unclearCount = 0
    for (let part = parts.shift(); part !== undefined && !this.signal.aborted; part = parts.shift()) {
      if (!(await renewLago(db, lease, LEASE_MS))) return 'lost'
      const verdict = await client.send(part.map(toLagoInput), this.signal)
      if (verdict.kind === 'later') return verdict
      const { taken, refused, left } = outcomeOf(part, verdict)
      await recordLago(db, taken, refused)
      parts.unshift(...left)
      takenCount += taken.length
      refusals.push(...refused.map(({ reason }) => reason))
      if (verdict.kind !== 'unclear') continue
      unclearCount += refused.length
      if (takenCount === 0 && unclearCount >= MAX_UNCLEAR)
        return { kind: 'later', reason: verdict.reason, isRate: false, afterMs: undefined }
    }
    if (refusals.length > 0) logger.warn({ refused: refusals.length, reason: refusals[0] }, 'lago.events_refused')
    logger.info({ taken: takenCount, of: events.length }, 'lago.sent')
    return 'done'
  }

  async #restAfter(failures: number, { reason, isRate, afterMs }: Later): Promise<LagoTurnEnd> {
    const end = this.#rest(failures, reason)
    const { waiting, oldestAt } = await findLagoBacklog(this.#deps.db)
    const delayMs = isRate && afterMs !== undefined ? rateDelayMs(afterMs) : end.delayMs
    this.#deps.logger.warn({ reason, waiting, oldestAt, failures: end.failures, delayMs }, 'lago.rests')
    return { ...end, delayMs }
  }

  #rest(failures: number, problem: string): LagoTurnEnd {
    const { firstDelayMs = FIRST_DELAY_MS } = this.#deps
    return { delayMs: backOffMs(failures + 1, firstDelayMs), failures: failures + 1, problem }
  }
}
