import { errorText, type Logger, settleAll } from '@wrenn/base'
import { Rounds } from '../domain/rounds.js'
import type { Db } from '../store/database.js'
import { forgetMail, giveUpExpired, giveUpMail, postponeMail, pruneMails, takeMails } from '../store/mails.js'
import type { MailRow } from '../store/schema.js'
import { compose } from './compose.js'
import { type Delivery, RefusedForGood } from './delivery.js'
import type { Links } from './letter.js'

const AT_ONCE = 5
/** Longer than any attempt takes (`smtp.ts` bounds it), so that only a mail whose sender died is taken again. */
const LEASE_MS = 120_000
const FIRST_DELAY_MS = 2_000
const MAX_DELAY_MS = 15 * 60_000
const KEEP_GIVEN_UP_MS = 30 * 24 * 3600 * 1000
const PRUNE_EVERY_MS = 3600 * 1000
const MAX_REASON_LENGTH = 300

interface MailSenderDeps {
  readonly db: Db
  /** `undefined`: mails are left to those that can send them. */
  readonly delivery: Delivery | undefined
  readonly links: Links
  readonly logger: Logger
  readonly lookEveryMs: number
  /** @default 2 000 */
  readonly firstDelayMs?: number
}

/**
 * Sends the mails that wait in the database, as one of several that may do so. One that the next hop does not take is tried again later and
 * later, until what it says is no longer true or the hop refuses it for good. A sender that dies between the hop's answer and ours to the
 * database makes a mail come twice, with one Message-ID; none is lost.
 */
export class MailSender {
  readonly #deps: MailSenderDeps
  readonly #rounds: Rounds
  #prunedAt = Number.NEGATIVE_INFINITY

  constructor(deps: MailSenderDeps) {
    this.#deps = deps
    this.#rounds = new Rounds(
      () => this.#round(),
      deps.lookEveryMs,
      (error) => deps.logger.warn({ error: errorText(error) }, 'mail.round_failed'),
    )
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for the attempts that are under way; what is left waits in the database. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    this.#deps.delivery?.close()
  }

  async #round(): Promise<void> {
    const { db, delivery } = this.#deps
    if (delivery === undefined) await giveUpExpired(db, 'No control plane could send it before it expired.')
    else await this.#sendDue(delivery)
    if (performance.now() - this.#prunedAt < PRUNE_EVERY_MS) return
    this.#prunedAt = performance.now()
    await pruneMails(db, KEEP_GIVEN_UP_MS)
  }

  async #sendDue(delivery: Delivery): Promise<void> {
    const { db } = this.#deps
    for (let taken = AT_ONCE; taken === AT_ONCE && !this.#rounds.signal.aborted; ) {
      const mails = await takeMails(db, AT_ONCE, LEASE_MS)
      taken = mails.length
      // One whose record fails must not leave the others running on their own.
      await settleAll(mails.map((mail) => this.#attempt(mail, delivery)))
    }
  }

  async #attempt(row: MailRow, delivery: Delivery): Promise<void> {
    const { db, logger, links } = this.#deps
    const { id, kind } = row
    if (row.expires_at <= new Date())
      return await this.#giveUp(row, row.reason ?? 'It expired before it could be sent.')
    const mail = compose(row, links)
    // Its kind is of a newer version, which sends it.
    if (mail === undefined) return await postponeMail(db, row, MAX_DELAY_MS, 'This version does not know its kind.')
    try {
      await delivery.deliver(mail)
    } catch (error) {
      return await this.#failed(row, error)
    }
    await forgetMail(db, id)
    logger.info({ mailId: id, kind, attempts: row.attempts }, 'mail.sent')
  }

  async #failed(row: MailRow, error: unknown): Promise<void> {
    // A server may answer anything; text columns cannot hold NUL.
    const reason = errorText(error).replaceAll('\0', '\uFFFD').slice(0, MAX_REASON_LENGTH)
    if (error instanceof RefusedForGood) return await this.#giveUp(row, reason)
    const first = this.#deps.firstDelayMs ?? FIRST_DELAY_MS
    const delayMs = Math.min(first * 2 ** Math.min(row.attempts - 1, 20), MAX_DELAY_MS)
    await postponeMail(this.#deps.db, row, delayMs, reason)
    const { id: mailId, kind, attempts } = row
    this.#deps.logger.warn({ mailId, kind, attempts, delayMs, reason }, 'mail.postponed')
  }

  async #giveUp(row: MailRow, reason: string): Promise<void> {
    await giveUpMail(this.#deps.db, row, reason)
    const { id: mailId, kind, attempts } = row
    this.#deps.logger.warn({ mailId, kind, attempts, reason }, 'mail.given_up')
  }
}
