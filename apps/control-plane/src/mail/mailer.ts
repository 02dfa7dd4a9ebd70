import type { Db } from '../store/database.js'
import { addMail } from '../store/mails.js'
import { requireMailAddress } from './address.js'
import type { Mail } from './kinds.js'

/** News that came later than this would only confuse. */
const LATEST_MS = 24 * 3600 * 1000

/** Has mails sent. */
export class Mailer {
  /**
   * Leaves a mail to be sent as soon as the transaction `tx` is committed, and never when it is not. Takes one insert and waits for no mail
   * server; what becomes of the mail is no matter of the request.
   * @throws AppError `invalid_request` when `to` is not one plain address
   */
  async send(tx: Db, mail: Mail): Promise<void> {
    const { to, kind, ...data } = mail
    const recipient = requireMailAddress(to)
    const expiresAt = 'expiresAt' in data ? new Date(data.expiresAt) : new Date(Date.now() + LATEST_MS)
    await addMail(tx, { recipient, kind, data, expiresAt })
  }
}
